/*-------------------------------------------------------------------------
 * redacted_tags.c
 *	  Tags that were made of what is redacted, and those of events that are removed.
 *
 * Where define_tags makes other tags of the new payload, the event loses those of the old one,
 * and gets the new ones.  A payload of which a tag could not be made any more that all
 * events of the type must have is refused: decisions would overlook the event, and retag
 * would come to its end never again.  Tags that an event was given beside are not looked into.
 *
 * An event that is removed loses all, unless one of another stream shares them: restored events
 * may have one position, and tags do not tell those of a type apart.
 *
 * What reads by tags sees the change with the redaction; it is no new event, so nobody who
 * has come further in the log hears of it by its new tags.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/registry.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/redaction.h"
#include "tag/event_tags.h"
#include "tag/redacted_tags.h"
#include "tag/tag_definition.h"

static void retag_event(const Event *before, const Event *after, const text *reason);
static void apply(const TagTemplate *template, const Event *before, const Event *after,
				  TagList *gone, TagList *made);
static void written_tags(const Event *event, TagList *tags);
static void remove_all(const Event *event);
static bool is_tied(const Event *event);
static bool has_all(const TagList *tags, const TagList *wanted);

void
RedactedTagsInit(void)
{
	static const RedactionPart part = {.event = retag_event};

	RedactionRegister(&part);
}

static void
retag_event(const Event *before, const Event *after, const text *reason)
{
	const TagDefinition *definition;
	TagList		gone = {0};
	TagList		made = {0};
	TagList		written = {0};
	TagList		lacking = {0};
	int			i;

	if (after == NULL)
	{
		remove_all(before);
		return;
	}
	RegistryEnter();
	definition = TagDefinitionIsAny() ? TagDefinitionOf(EventText(before, EVENT_EVENT_TYPE)) : NULL;
	for (i = 0; definition && i < definition->ntemplates; i++)
		apply(&definition->templates[i], before, after, &gone, &made);
	RegistryLeave();
	if (gone.n + made.n == 0)
		return;
	written_tags(before, &written);
	/* to one that has none of them yet retag gives the new ones */
	if (has_all(&written, &gone))
	{
		EventTagWriter *writer = EventTagsWriterOpen();

		for (i = 0; i < made.n; i++)
			if (!TagListHas(&written, made.tags[i]))
				TagListAdd(&lacking, made.tags[i]);
		EventTagsWriterAdd(writer, after, &lacking);
		EventTagsWriterClose(writer);
	}
	for (i = 0; i < gone.n; i++)
		if (!TagListHas(&made, gone.tags[i]))
			EventTagsRemove(before, gone.tags[i]);
}

static void
remove_all(const Event *event)
{
	TagList		written = {0};
	int			i;

	written_tags(event, &written);
	if (written.n == 0 || is_tied(event))
		return;
	for (i = 0; i < written.n; i++)
		EventTagsRemove(event, written.tags[i]);
}

/* Has an event of another stream all that its tags tell of it? */
static bool
is_tied(const Event *event)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	EventScan  *scan = EventScanWholeAt(EventGlobalPosition(event), snapshot);
	bool		found = false;
	StreamKey	key;
	Event		other;

	EventKey(event, &key);
	while (!found && EventScanNext(scan, &other))
	{
		StreamKey	other_key;

		EventKey(&other, &other_key);
		found = !StreamKeyEqual(&other_key, &key) && TextEqual(other_key.tenant_id, key.tenant_id) &&
			TextEqual(EventText(&other, EVENT_EVENT_TYPE), EventText(event, EVENT_EVENT_TYPE));
	}
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	return found;
}

/* Add what a template gave for the old payload, and what it gives for the new one. */
static void
apply(const TagTemplate *template, const Event *before, const Event *after, TagList *gone, TagList *made)
{
	bool		had = TagTemplateApply(template, DatumGetJsonbP(before->values[EVENT_PAYLOAD]), gone, NULL);

	if (!TagTemplateApply(template, DatumGetJsonbP(after->values[EVENT_PAYLOAD]), made, NULL) && had)
		ereport(ERROR,
				(errcode(ERRCODE_TAG_WITHOUT_VALUE),
				 errmsg("the event at position %lld would lose a tag that all of its type have",
						(long long) EventGlobalPosition(before)),
				 errdetail("Tags like \"%s\" are made of what is redacted.", template->source),
				 errhint("Pass a replacement of which a tag can be made, as '\"redacted\"'.")));
}

static void
written_tags(const Event *event, TagList *tags)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Datum		array = EventTagsOf(EventText(event, EVENT_TENANT_ID), EventGlobalPosition(event),
									EventText(event, EVENT_EVENT_TYPE), snapshot);
	Datum	   *datums;
	int			n;
	int			i;

	UnregisterSnapshot(snapshot);
	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
	for (i = 0; i < n; i++)
		TagListAdd(tags, DatumGetTextPP(datums[i]));
}

static bool
has_all(const TagList *tags, const TagList *wanted)
{
	int			i;

	for (i = 0; i < wanted->n; i++)
		if (!TagListHas(tags, wanted->tags[i]))
			return false;
	return true;
}
