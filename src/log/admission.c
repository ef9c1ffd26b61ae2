/*-------------------------------------------------------------------------
 * admission.c
 *	  The guards of the log: the BEFORE ROW trigger that admits rows which did
 *	  not come through append_event, and the refusal of every change.
 *
 * A plain INSERT or COPY is held to the rules of append: the right next
 * sequence or none (then it is filled in); a taken one goes on to the unique
 * index, which raises 23505 as clients with a table of their own expect; a hole
 * is refused.  Waiting for a stream's end in progress happens here, in
 * EventScanTip (log_range.c where the log is partitioned by position), so the time is filled in behind that: it does not lie before that of the
 * event in front.  A time that is given is kept.  What still races after the wait is
 * arbitrated by the index.  A table
 * without one, or whose partitions tear streams apart, is refused
 * (stream_index.c).
 *
 * A row that brings a position which this backend did not draw is a restored
 * one (pg_restore, a move from another database).  It is let in as it stands,
 * in any order, but only by the table's owner, and not at a position that is taken.
 * (Two who put a row at one position in the same instant may both succeed: no
 * unique index can guard that on a log that is partitioned or distributed by
 * stream, so readers take such rows together anyway.)
 *
 * Any other row gets its time from the log.  One that brings it must come from who
 * may import (import.c) or owns the table, for by the times audits go.
 *
 * How long texts may be: events.h.
 *
 * No cached oids and no table names here: on a partitioned or distributed log
 * the trigger sees a partition or a shard.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/distribution.h"
#include "base/errors.h"
#include "base/stream_key.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/admission.h"
#include "log/context.h"
#include "log/event_scan.h"
#include "log/events.h"
#include "log/import.h"
#include "log/log_end.h"
#include "log/log_range.h"
#include "log/personal_data.h"
#include "log/position.h"
#include "log/redaction.h"
#include "log/reserved_type.h"
#include "log/stream_index.h"
#include "log/tagging.h"

/* who wants to know of restored rows */
static AdmissionObserver tell_restored = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_admit_event);
PG_FUNCTION_INFO_V1(cqrs_es_refuse_change);

/* The new row: all its columns, and which of them the trigger changed. */
typedef struct NewRow
{
	NullableDatum columns[EVENT_NCOLUMNS];
	bool		changed[EVENT_NCOLUMNS];
} NewRow;

static void check_new_row(Relation rel, const EventColumns *columns, NewRow *row, StreamKey *key);
static void require_values(Relation rel, const EventColumns *columns, const NewRow *row);
static void admit_restored(Relation rel, NewRow *row);
pg_noreturn static void report_misplaced(const StreamKey *key);
static Datum protected_payload(const NewRow *row);
static void event_of(const NewRow *row, Event *event);
static bool lock_tags(Relation rel, const NewRow *row, uint64 drawn_in);
static StreamTip find_end(Relation rel, Oid stream_index, const EventColumns *columns,
						  const StreamKey *key);
static void settle_sequence(NewRow *row, const StreamKey *key, const StreamTip *tip, bool draw);
static void check_time(Relation rel, const NewRow *row, const StreamKey *key);
static void settle_time(NewRow *row, const StreamTip *tip);
static void set_column(NewRow *row, EventColumn column, Datum value);

/* Have somebody told of restored rows, who must not fail; called by Inits only. */
void
AdmissionSetObserver(AdmissionObserver observer)
{
	tell_restored = observer;
}

/* SQL: the BEFORE INSERT ROW trigger of the log */
Datum
cqrs_es_admit_event(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EventColumns columns;
	HeapTuple	tuple;
	TupleDesc	desc;
	NewRow		row = {0};
	StreamKey	key;
	int			nchanged = 0;
	int			attnums[EVENT_NCOLUMNS];
	Datum		values[EVENT_NCOLUMNS];
	bool		nulls[EVENT_NCOLUMNS] = {false};
	StreamTip	tip = {0};
	Oid			stream_index;
	uint64		drawn_in;
	int			column;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired BEFORE INSERT FOR EACH ROW", "admit_event()")));

	tuple = trigdata->tg_trigtuple;
	desc = RelationGetDescr(trigdata->tg_relation);
	EventColumnsOf(trigdata->tg_relation, &columns);
	for (column = 0; column < EVENT_NCOLUMNS; column++)
		row.columns[column].value = heap_getattr(tuple, columns.attno[column], desc,
												 &row.columns[column].isnull);

	check_new_row(trigdata->tg_relation, &columns, &row, &key);

	/* before anything of a stream is looked at, or waited for */
	TenancyRequireOwn(trigdata->tg_relation, key.tenant_id);
	stream_index = StreamIndexRequire(trigdata->tg_relation, &columns);
	if (!PositionTake(DatumGetInt64(row.columns[EVENT_GLOBAL_POSITION].value), &drawn_in))
	{
		if (DistributionIsOurs(trigdata->tg_relation))
			report_misplaced(&key);
		admit_restored(trigdata->tg_relation, &row);
	}
	else
	{
		Jsonb	   *metadata = DatumGetJsonbP(row.columns[EVENT_METADATA].value);
		Jsonb	   *merged = ContextMetadata(metadata);
		Datum		stored;
		bool		draw;

		EventsRequireAdmitted();
		ReservedTypeRefuse(DatumGetTextPP(row.columns[EVENT_EVENT_TYPE].value));
		/* also when the row brings the empty one itself */
		TenancyRequireGiven(key.tenant_id);
		check_time(trigdata->tg_relation, &row, &key);
		stored = protected_payload(&row);
		draw = lock_tags(trigdata->tg_relation, &row, drawn_in);
		tip = find_end(trigdata->tg_relation, stream_index, &columns, &key);
		settle_sequence(&row, &key, &tip, draw);
		if (LogRangeIs(trigdata->tg_relation))
			LogRangeRequire(trigdata->tg_relation, &key,
							DatumGetInt64(row.columns[EVENT_GLOBAL_POSITION].value), &tip);
		TaggingAdmitted(trigdata->tg_relation,
						DatumGetInt64(row.columns[EVENT_GLOBAL_POSITION].value));
		if (merged != metadata)
			set_column(&row, EVENT_METADATA, JsonbPGetDatum(merged));
		if (stored != row.columns[EVENT_PAYLOAD].value)
			set_column(&row, EVENT_PAYLOAD, stored);
	}
	settle_time(&row, &tip);

	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		if (!row.changed[column])
			continue;
		attnums[nchanged] = columns.attno[column];
		values[nchanged] = row.columns[column].value;
		nchanged++;
	}
	if (nchanged > 0)
		tuple = heap_modify_tuple_by_cols(tuple, desc, nchanged, attnums, values, nulls);
	return PointerGetDatum(tuple);
}

/*
 * SQL: the BEFORE UPDATE, DELETE, TRUNCATE trigger of the log, and of what belongs to its
 * events; then its argument says what that is.
 */
Datum
cqrs_es_refuse_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const char *command;
	const char *what;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as a trigger", "refuse_change()")));
	if (RedactionPermits(trigdata))
		return PointerGetDatum(!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ? NULL :
							   TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) ? trigdata->tg_trigtuple : trigdata->tg_newtuple);
	command = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ? "UPDATE" :
		TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) ? "DELETE" : "TRUNCATE";
	what = trigdata->tg_trigger->tgnargs > 0 ? trigdata->tg_trigger->tgargs[0] : NULL;
	ereport(ERROR,
			(errcode(ERRCODE_APPEND_ONLY),
			 errmsg("%s are append-only: %s is refused", what ? what : "events", command),
			 what ? errdetail("Nobody may change or remove the %s of events, not even the owner of the table.", what) :
			 errdetail("Nobody may change or remove an event, not even the owner of the table."),
			 errhint("Append an event that corrects the earlier one.")));
	return PointerGetDatum(NULL);	/* not reached */
}

/*
 * The texts of a row must be what append_event would take, its metadata an
 * object.  Fills in the row's key.
 */
static void
check_new_row(Relation rel, const EventColumns *columns, NewRow *row, StreamKey *key)
{
	require_values(rel, columns, row);
	key->aggregate_type = TextArgument(row->columns[EVENT_AGGREGATE_TYPE],
									   "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key->aggregate_id = TextArgument(row->columns[EVENT_AGGREGATE_ID],
									 "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key->tenant_id = DatumGetTextPP(row->columns[EVENT_TENANT_ID].value);
	if (VARSIZE_ANY_EXHDR(key->tenant_id) > TENANT_MAX_BYTES)
		(void) TextArgument(row->columns[EVENT_TENANT_ID], "tenant_id", TENANT_MAX_BYTES);
	(void) TextArgument(row->columns[EVENT_EVENT_TYPE], "event_type", EVENT_TYPE_MAX_BYTES);
	(void) TextArgument(row->columns[EVENT_EVENT_VERSION], "event_version",
						EVENT_VERSION_MAX_BYTES);
	if (!row->columns[EVENT_SEQUENCE].isnull &&
		DatumGetInt64(row->columns[EVENT_SEQUENCE].value) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sequence must be greater than zero"),
				 errdetail("The event is one of stream \"%s\".", StreamKeyName(key)),
				 errhint("Sequences begin with 1. Add 1 to those of a system that counts from 0, or leave them out and insert in order.")));
}

/*
 * No null but in the sequence, which is filled in: 23502.  The table would say it,
 * too, but of the sequence first, which nobody has to give.
 */
static void
require_values(Relation rel, const EventColumns *columns, const NewRow *row)
{
	int			column;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		AttrNumber	attno = columns->attno[column];

		if (!row->columns[column].isnull || column == EVENT_SEQUENCE || column == EVENT_CREATED_AT)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
						NameStr(TupleDescAttr(RelationGetDescr(rel), attno - 1)->attname),
						RelationGetRelationName(rel)),
				 row->columns[EVENT_AGGREGATE_TYPE].isnull || row->columns[EVENT_AGGREGATE_ID].isnull ? 0 :
				 errdetail("The event is one of stream \"%s/%s\".",
						   TextDatumGetCString(row->columns[EVENT_AGGREGATE_TYPE].value),
						   TextDatumGetCString(row->columns[EVENT_AGGREGATE_ID].value)),
				 column == EVENT_PAYLOAD ? errhint("For an event without fields use '{}'.") :
				 TupleDescAttr(RelationGetDescr(rel), attno - 1)->atthasdef ?
				 errhint("Leave the column out; it has a default.") : 0,
				 errtablecol(rel, attno)));
	}
}

/*
 * A restored row.  Its position must not be in the log yet (23505), as far as this
 * table is all of the log; and readers must be able to wait for it: hold the lock
 * that drawing one would have taken.
 */
static void
admit_restored(Relation rel, NewRow *row)
{
	int64		position = DatumGetInt64(row->columns[EVENT_GLOBAL_POSITION].value);
	char	   *stream;

	if (!compat_class_ownercheck(RelationGetRelid(rel), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set global_position"),
				 errdetail("Only the owner of table \"%s\" may restore events with their old positions.",
						   RelationGetRelationName(rel)),
				 errhint("Leave global_position out; it has a default.")));
	if (position <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("global_position must be greater than zero")));
	if (row->columns[EVENT_SEQUENCE].isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an event that is restored with its global_position needs its sequence")));
	if (LogRangeIs(rel))
		LogRangeRequireOurs(rel, position);
	PositionHoldReaders();
	stream = LogEndStreamAt(rel, position);
	if (stream)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("position %lld is in the log already", (long long) position),
				 errdetail("The event at that position is one of stream \"%s\".", stream),
				 errhint("Leave global_position out to append the events. To restore a log that has positions twice, set session_replication_role to replica.")));
	if (POSITION_NODE(position) == PositionNode())
	{
		(void) PositionAdvance(POSITION_NUMBER(position));
		if (tell_restored)
			tell_restored(position);
	}
}

/* A row of a distributed log that comes from another node, or from another session of this one. */
static void
report_misplaced(const StreamKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_NOT_AT_HOME),
			 errmsg("stream \"%s\" is stored on another node", StreamKeyName(key)),
			 errdetail("Events are appended by a session of the node that stores them, which draws their positions."),
			 errhint("home_of() says which node that is.")));
}

/* The payload as it is to be stored: the same, or with personal data in it encrypted. */
static Datum
protected_payload(const NewRow *row)
{
	Event		event;

	event_of(row, &event);
	return PersonalDataProtected(&event);
}

static void
event_of(const NewRow *row, Event *event)
{
	int			column;

	memset(event, 0, sizeof(*event));
	for (column = 0; column < EVENT_NCOLUMNS; column++)
		event->values[column] = row->columns[column].value;
}

/*
 * Lock the tags of the row.  True when its position must be drawn anew: it was drawn, by
 * the column's default, before we had all of these locks, so readers of the tags need not have
 * waited for us; or before a trigger of users has read the log, which then must not get an
 * event, whatever its tags, below what was read.
 */
static bool
lock_tags(Relation rel, const NewRow *row, uint64 drawn_in)
{
	Event		event;

	event_of(row, &event);
	TaggingAdmit(rel, &event);
	return drawn_in != PositionEpoch();
}

/* Where does the stream end?  Waits for who holds its end. */
static StreamTip
find_end(Relation rel, Oid stream_index, const EventColumns *columns, const StreamKey *key)
{
	Relation	index;
	TupleTableSlot *slot;
	StreamTip	tip;

	if (LogRangeIs(rel))
		return LogRangeTip(key);
	index = index_open(stream_index, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	tip = EventScanTip(rel, index, columns, key, NULL, slot);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return tip;
}

/*
 * Give the row its sequence, or check the one it brings; and another position where it
 * needs one, or if to `draw` it.
 */
static void
settle_sequence(NewRow *row, const StreamKey *key, const StreamTip *tip, bool draw)
{
	int64		sequence = DatumGetInt64(row->columns[EVENT_SEQUENCE].value);
	int64		position = DatumGetInt64(row->columns[EVENT_GLOBAL_POSITION].value);

	if (tip->after_snapshot)
		EventScanReportMoved(key);
	/* one that is taken is that of another event, which the index says */
	if (row->columns[EVENT_SEQUENCE].isnull || sequence > tip->version)
		EventScanRequireOpen(key, tip);
	if (row->columns[EVENT_SEQUENCE].isnull)
	{
		EventScanRequireRoom(key, tip, 1);
		set_column(row, EVENT_SEQUENCE, Int64GetDatum(tip->version + 1));
	}
	else if (sequence - 1 > tip->version)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_HOLE),
				 errmsg("sequence %lld would leave a hole in stream \"%s\"",
						(long long) sequence, StreamKeyName(key)),
				 errdetail("The stream is at version %lld.", (long long) tip->version),
				 errhint("Insert sequence %lld, or leave the sequence out.",
						 (long long) tip->version + 1)));

	/*
	 * The column default was drawn before we waited for the stream's end.  If that end
	 * came after, take a later position; the first is a dead gap.
	 */
	if (draw || (position <= tip->global_position &&
				 POSITION_NODE(position) == POSITION_NODE(tip->global_position)))
		set_column(row, EVENT_GLOBAL_POSITION, Int64GetDatum(PositionDraw(tip->global_position, NULL)));
}

/*
 * Times are what an audit goes by: who may write events may not say when they happened,
 * but who may import, or restore.  And all later events of the stream would get one
 * that is not finite.
 */
static void
check_time(Relation rel, const NewRow *row, const StreamKey *key)
{
	const NullableDatum *created_at = &row->columns[EVENT_CREATED_AT];

	if (created_at->isnull)
		return;
	if (!compat_class_ownercheck(RelationGetRelid(rel), GetUserId()) && !ImportAllowed())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set created_at"),
				 errdetail("Only the owner of table \"%s\", and who may execute import_events(), may say when an event happened.",
						   RelationGetRelationName(rel)),
				 errhint("Leave created_at out; the log says it.")));
	if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(created_at->value)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("created_at must be finite"),
				 errdetail("The event is one of stream \"%s\".", StreamKeyName(key))));
}

/* Give the row its time, unless it brings one: the clock's, but not before the event in front. */
static void
settle_time(NewRow *row, const StreamTip *tip)
{
	if (row->columns[EVENT_CREATED_AT].isnull)
		set_column(row, EVENT_CREATED_AT,
				   TimestampTzGetDatum(Max(GetCurrentTimestamp(), tip->created_at)));
}

static void
set_column(NewRow *row, EventColumn column, Datum value)
{
	row->columns[column].value = value;
	row->columns[column].isnull = false;
	row->changed[column] = true;
}
