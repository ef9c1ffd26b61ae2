/*-------------------------------------------------------------------------
 * missed_redaction.c
 *	  Projections that cannot be told of a redaction, or of the deletion of a stream.
 *
 * A projection hears of a redaction by the event '$redacted', and of a deletion by '$deleted': one that
 * keeps states folds them anew, another runs the handler that it has for that.  (Not the one for '*': nothing says
 * that it erases anything.)  One without such a handler, or for events with certain tags, which
 * '$redacted' has not, keeps what was erased, and is marked: it has to be rebuilt.  The
 * rebuild takes the mark away as it empties the tables.
 *
 * Who marks and who rebuilds lock the row of the projection, so a mark is either there when the
 * tables are emptied, or comes behind the rebuild.  Who rebuilds locks the row first of all and
 * then waits for those who have appended; so it is locked here before '$redacted' is appended.
 *
 * Where such an event is received from another database, those are marked that handle any event of
 * the stream: which ones were changed is not said.
 *
 * Messages of errors may tell what was erased as well; an event that is removed is skipped no more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "utils/builtins.h"

#include "base/registry.h"
#include "log/redaction.h"
#include "projection/missed_redaction.h"

/* projections p that are for events of aggregate type $1, and are not told by an event of type $2 */
#define ARE_NOT_TOLD \
	" p.state_of IS NULL AND (p.aggregate_types IS NULL OR $1 OPERATOR(pg_catalog.=) ANY (p.aggregate_types))" \
	" AND (p.tags IS NOT NULL OR NOT EXISTS (SELECT FROM cqrs_es.handlers AS h" \
	" WHERE h.projection OPERATOR(pg_catalog.=) p.name" \
	" AND h.event_type OPERATOR(pg_catalog.=) $2))"

static void lock_untold(const Redaction *redaction);
static void mark_untold(const Redaction *redaction);
static void forget_messages(const Redaction *redaction);
static void follow(const Redaction *redaction);

void
MissedRedactionInit(void)
{
	static const RedactionPart part = {.lock = lock_untold,.follow = follow,.received = mark_untold};

	RedactionRegister(&part);
}

static void
follow(const Redaction *redaction)
{
	mark_untold(redaction);
	forget_messages(redaction);
}

static void
lock_untold(const Redaction *redaction)
{
	static InternalQuery query = {
		.sql = "SELECT p.name FROM cqrs_es.projections AS p WHERE" ARE_NOT_TOLD
		" ORDER BY p.name FOR NO KEY UPDATE",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {PointerGetDatum(redaction->key.aggregate_type),
		CStringGetTextDatum(redaction->event_type)};

	(void) RegistryWrite(&query, values, NULL);
}

/* Those that handle any of the events that were changed; a mark of before stays. */
static void
mark_untold(const Redaction *redaction)
{
#define ARE_TO_BE_MARKED \
	ARE_NOT_TOLD " AND p.redacted_position IS NULL AND EXISTS (SELECT FROM cqrs_es.handlers AS h" \
	" WHERE h.projection OPERATOR(pg_catalog.=) p.name AND (h.event_type OPERATOR(pg_catalog.=) '*'" \
	" OR h.event_type OPERATOR(pg_catalog.=) ANY ($3)))"
	static InternalQuery any = {
		.sql = "SELECT FROM cqrs_es.projections AS p WHERE" ARE_TO_BE_MARKED,
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTARRAYOID}
	};
	static InternalQuery mark = {
		.sql = "UPDATE cqrs_es.projections AS p SET redacted_position = $4 WHERE" ARE_TO_BE_MARKED,
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTARRAYOID, INT8OID}
	};
	Datum		values[4] = {PointerGetDatum(redaction->key.aggregate_type),
		CStringGetTextDatum(redaction->event_type), PointerGetDatum(redaction->event_types),
		Int64GetDatum(redaction->global_position)};

	if (RegistryHas(&any, values, NULL))
		(void) RegistryWrite(&mark, values, NULL);
}

static void
forget_messages(const Redaction *redaction)
{
#define SKIPPED_OF_STREAM \
	" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2" \
	" AND tenant_id OPERATOR(pg_catalog.=) $3"
	static InternalQuery forget = {
		.sql = "UPDATE cqrs_es.skipped_events SET message = '" REDACTED_TEXT "', detail = NULL" SKIPPED_OF_STREAM,
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	static InternalQuery remove = {
		.sql = "DELETE FROM cqrs_es.skipped_events" SKIPPED_OF_STREAM,
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(redaction->key.aggregate_type),
		PointerGetDatum(redaction->key.aggregate_id), PointerGetDatum(redaction->key.tenant_id)};

	(void) RegistryWrite(redaction->removes ? &remove : &forget, values, NULL);
}

/* Of a projection whose row is locked, and whose tables have been emptied: take its mark away. */
void
MissedRedactionForget(const char *projection)
{
	static InternalQuery any = {
		.sql = "SELECT FROM cqrs_es.projections WHERE name OPERATOR(pg_catalog.=) $1"
		" AND redacted_position IS NOT NULL",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery forget = {
		.sql = "UPDATE cqrs_es.projections SET redacted_position = NULL WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);

	if (RegistryHas(&any, &value, NULL))
		(void) RegistryWrite(&forget, &value, NULL);
}
