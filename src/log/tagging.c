/*-------------------------------------------------------------------------
 * tagging.c
 *	  Where the tags of events come from, and go to.
 *
 * What tags are, the log does not know.  It says when: in which order an append takes the
 * lock on the log, the locks of its tags, the end of its stream, its positions, and writes
 * its rows and their tags (src/tag/tag_slot.c says why).  Tags are written where the row is, and not
 * when observers are told, for events of handlers wait in a queue until then.
 *
 * Nothing of what is declared is kept from one of these calls to the next, so what it was
 * read into goes when it is old (registry.c), also in the middle of a transaction.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/registry.h"
#include "log/import_tags.h"
#include "log/tagging.h"

static const Tagger *tagger = NULL;

/* Called by an Init only. */
void
TaggingSetTagger(const Tagger *by)
{
	tagger = by;
}

/* See Tagger for this and the following. */
Tagging *
TaggingBegin(const AppendRequest *requests, int nrequests, const struct TagSlotSet *asks)
{
	Tagging    *tagging;

	if (tagger == NULL)
		return NULL;
	RegistryEnter();
	tagging = tagger->begin(requests, nrequests, asks);
	RegistryLeave();
	return tagging;
}

void
TaggingWrite(const Tagging *tagging, bool by_triggers)
{
	if (tagging)
		tagger->write(tagging, by_triggers);
}

void
TaggingAdmit(Relation rel, const Event *event)
{
	if (tagger == NULL)
		return;
	RegistryEnter();
	tagger->admit(rel, event, ImportTagsOf(event, IMPORT_TAGS_ADMIT));
	RegistryLeave();
}

void
TaggingAdmitted(Relation rel, int64 position)
{
	if (tagger == NULL)
		return;
	RegistryEnter();
	tagger->admitted(rel, position);
	RegistryLeave();
}

void
TaggingRowWritten(Relation rel, const Event *event, bool ends)
{
	if (tagger == NULL)
		return;
	RegistryEnter();
	tagger->row_written(rel, event, ImportTagsOf(event, IMPORT_TAGS_WRITE), ends);
	RegistryLeave();
}

void
TaggingStatementEnded(void)
{
	if (tagger)
		tagger->statement_ended();
}

bool
TaggingHas(const text *tenant_id, int64 position, const text *event_type, ArrayType *tags)
{
	return tagger && tagger->has(tenant_id, position, event_type, tags);
}
