/*-------------------------------------------------------------------------
 * retag.c
 *	  Tags for the events that were there before they were defined.
 *
 * Such events are committed, or will never be: who defined the tags has waited for all
 * who had appended (tag_definition.c).  So nobody writes tags of them but retag, and
 * writers of new ones have nothing to do with it.  Each portion locks the definition,
 * gives the next events the tags that they lack, remembers how far it has come, and
 * commits.  Two who do so at once take turns; who is interrupted leaves what the portions
 * before have done; and when somebody defines other tags meanwhile, the next portion
 * begins again with these.
 *
 * The last portion makes the definition complete, in the transaction that writes its
 * tags: who finds it so and takes a snapshot after that sees all of them.  An event that
 * has no value for a tag stops it, as it would have been refused, and so does one that
 * would have too many.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/portion.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/role_switch.h"
#include "base/text.h"
#include "base/wakeup.h"
#include "log/events.h"
#include "tag/event_tags.h"
#include "tag/tag_definition.h"

/*
 * A definition that is locked, and how far its history has its tags.  All of it is of the locked
 * row: for a moment after a commit others' registries may still show what was there before.
 */
typedef struct History
{
	text	   *event_type;
	int			ntemplates;
	TagTemplate *templates;
	int64		history_to;
	int64		retagged_to;
	bool		is_complete;
} History;

PG_FUNCTION_INFO_V1(cqrs_es_retag);

static void require_defined(const text *event_type);
static bool tag_portion(const text *event_type, int32 portion);
static bool lock_history(const text *event_type, History *history);
static void tag_events(History *history, int32 portion);
static void tag_event(EventTagWriter *writer, const History *history, const QueryRow *row);
static TagList *lacking_tags(const History *history, const Event *event, Jsonb *payload);
static void remember(const History *history);

/* SQL: CALL retag(event_type, portion) */
Datum
cqrs_es_retag(PG_FUNCTION_ARGS)
{
	text	   *event_type = NULL;
	int32		portion = PortionSize(fcinfo->args[1]);
	MemoryContext one;

	PortionRequireOwnTransactions(fcinfo, "retag()");
	ReadOnlyPrevent(fcinfo);
	/* what is allocated here lasts over commits */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	if (!PG_ARGISNULL(0))
	{
		event_type = DatumGetTextPCopy(PG_GETARG_DATUM(0));
		require_defined(event_type);
	}
	one = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es portion", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(one);
	while (tag_portion(event_type, portion))
	{
		PortionCommit();
		MemoryContextReset(one);
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/* 42704 unless something is defined for the type. */
static void
require_defined(const text *event_type)
{
	if (TagDefinitionOf(event_type) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no tags are defined for event type \"%s\"", text_to_cstring(event_type))));
}

/* Give some events their tags, of this type or of any when it is NULL; false when none lacks any. */
static bool
tag_portion(const text *event_type, int32 portion)
{
	History		history;

	if (!lock_history(event_type, &history))
		return false;
	tag_events(&history, portion);
	remember(&history);
	return true;
}

/* Lock a definition whose history lacks tags; false when there is none. */
static bool
lock_history(const text *event_type, History *history)
{
	static InternalQuery query = {
		.sql = "SELECT event_type, templates, history_to, retagged_to FROM cqrs_es.tag_definitions"
		" WHERE NOT is_complete AND (event_type OPERATOR(pg_catalog.=) $1 OR $1 IS NULL)"
		" ORDER BY event_type LIMIT 1 FOR UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(event_type);
	MemoryContext caller = CurrentMemoryContext;
	bool		found;

	SPI_connect();
	found = RegistryWriteRows(&query, &value, event_type ? NULL : "n") > 0;
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		history->event_type = cstring_to_text(InternalQueryText(&row, "event_type"));
		history->history_to = DatumGetInt64(InternalQueryDatum(&row, "history_to", NULL));
		history->retagged_to = DatumGetInt64(InternalQueryDatum(&row, "retagged_to", NULL));
		history->is_complete = false;
		history->templates = TagTemplateParseAll(DatumGetArrayTypeP(InternalQueryDatum(&row, "templates", NULL)),
												 &history->ntemplates);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return found;
}

/* Give the next events their tags, and take the history forward. */
static void
tag_events(History *history, int32 portion)
{
	static InternalQuery query = {
		.sql = "SELECT global_position, tenant_id, event_type, payload FROM cqrs_es.events"
		" WHERE event_type OPERATOR(pg_catalog.=) $1 AND global_position OPERATOR(pg_catalog.>) $2"
		" AND global_position OPERATOR(pg_catalog.<=) $3"
		" ORDER BY global_position FETCH FIRST $4 ROWS WITH TIES",
		.nargs = 4,.argtypes = {TEXTOID, INT8OID, INT8OID, INT8OID}
	};
	Datum		values[4] = {
		PointerGetDatum(history->event_type), Int64GetDatum(history->retagged_to),
		Int64GetDatum(history->history_to), Int64GetDatum(portion)
	};
	EventTagWriter *writer;
	RoleSwitch	saved;
	uint64		n;
	uint64		i;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	RoleSwitchRequireAllRows();
	n = InternalQueryRead(&query, values, NULL, GetLatestSnapshot());
	RoleSwitchBack(&saved);
	writer = EventTagsWriterOpen();
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		tag_event(writer, history, &row);
		if (i == n - 1)
			history->retagged_to = DatumGetInt64(InternalQueryDatum(&row, "global_position", NULL));
	}
	EventTagsWriterClose(writer);
	if (n < (uint64) portion)
	{
		history->retagged_to = history->history_to;
		history->is_complete = true;
	}
	SPI_finish();
}

static void
tag_event(EventTagWriter *writer, const History *history, const QueryRow *row)
{
	Event	   *event = palloc0(sizeof(Event));

	event->values[EVENT_GLOBAL_POSITION] = InternalQueryDatum(row, "global_position", NULL);
	event->values[EVENT_TENANT_ID] = PointerGetDatum(InternalQueryTextCopy(row, "tenant_id"));
	event->values[EVENT_EVENT_TYPE] = PointerGetDatum(InternalQueryTextCopy(row, "event_type"));
	EventTagsWriterAdd(writer, event,
					   lacking_tags(history, event,
									DatumGetJsonbP(InternalQueryDatum(row, "payload", NULL))));
}

/* What is defined for the event, and not written; in its last state, of whatever snapshot we are. */
static TagList *
lacking_tags(const History *history, const Event *event, Jsonb *payload)
{
	char	   *of = psprintf("the event of type \"%s\" at position %lld",
							  text_to_cstring(EventText(event, EVENT_EVENT_TYPE)),
							  (long long) EventGlobalPosition(event));
	TagList		defined = {0};
	TagList		there = {0};
	TagList    *lacking = palloc0(sizeof(TagList));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ArrayType  *tags = DatumGetArrayTypeP(EventTagsOf(EventText(event, EVENT_TENANT_ID),
													  EventGlobalPosition(event),
													  EventText(event, EVENT_EVENT_TYPE), snapshot));
	Datum	   *datums;
	int			n;
	int			i;

	UnregisterSnapshot(snapshot);
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
	for (i = 0; i < n; i++)
		TagListAdd(&there, DatumGetTextPP(datums[i]));
	for (i = 0; i < history->ntemplates; i++)
		(void) TagTemplateApply(&history->templates[i], payload, &defined, of);
	for (i = 0; i < defined.n; i++)
		if (!TagListHas(&there, defined.tags[i]))
			TagListAdd(lacking, defined.tags[i]);
	if (there.n + lacking->n > TAG_LIST_MAX)
		TagListReportTooMany();
	return lacking;
}

/* Write down how far it has come. */
static void
remember(const History *history)
{
	static InternalQuery come_along = {
		.sql = "UPDATE cqrs_es.tag_definitions SET retagged_to = $2"
		" WHERE event_type OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {TEXTOID, INT8OID}
	};
	static InternalQuery complete = {
		.sql = "UPDATE cqrs_es.tag_definitions SET retagged_to = $2, is_complete = true"
		" WHERE event_type OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {TEXTOID, INT8OID}
	};
	Datum		values[2] = {PointerGetDatum(history->event_type), Int64GetDatum(history->retagged_to)};

	(void) RegistryWrite(history->is_complete ? &complete : &come_along, values, NULL);
	/* readers by tags, who were refused or found nothing, draw no position either */
	if (history->is_complete)
		WakeupAtEnd();
}
