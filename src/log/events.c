/*-------------------------------------------------------------------------
 * events.c
 *	  The log table: its place in the catalog, and what may be done with it there.
 *
 * Two ways lead to the table.  The straight way works on the heap and its
 * indexes and skips the SQL executor; it is several times quicker.  It is
 * right only while the table is what we installed: a local heap without
 * partitions, foreign triggers, rules, policies beside our own (tenancy.c), or a
 * distributed engine that keeps the rows elsewhere; and to write, without any
 * unique index beside the one of the streams, be it one that is being built or
 * was left invalid (event_writer.c).  For everything else there is
 * the generic way, ordinary SQL through kept plans.  EventsTableGet looks at the
 * catalog and decides, once per relcache invalidation of the table;
 * EventsWriteStraight and EventsReadStraight are the only two who ask.
 *
 * A look into the catalog may take in invalidations, and then the server frees
 * what its caches hold, of an open relation, too: its triggers, for instance,
 * which others may add without waiting for us.  So what has to be looked up is
 * looked up first, and what belongs to a cache is looked at last, by functions
 * that do nothing else.  For the same reason EventsTableGet hands out a copy.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_opfamily_d.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/distribution.h"
#include "base/extension.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/lock_holders.h"
#include "base/registry.h"
#include "base/relation_change.h"
#include "base/setting.h"
#include "base/stream_key.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/events.h"
#include "log/stream_index.h"

static bool cqrs_es_force_generic_path = false;

static EventsTable events_table;
static bool events_table_valid = false;
static uint64 events_table_invalidations = 0;

/* the type cqrs_es.event, and its entry in pg_class */
static Oid	event_type_oid = InvalidOid;
static Oid	event_type_relid = InvalidOid;
static uint64 event_type_invalidations = 0;

static void tell_watchers(bool writes);
static void refuse_declarations(bool of_all_nodes);
static void invalidate_events(Oid relid);
static Oid	find_id_index(Relation rel, const EventColumns *columns);
static bool finds_ids(Relation index, const EventColumns *columns);

/* the function of a trigger that an append need not fire; or NULL */
static const char *idle_trigger = NULL;

static bool is_plain_heap(Relation rel);
static bool is_as_installed(Relation rel, const EventColumns *columns);
static bool are_our_triggers(const TriggerDesc *triggers, Oid admit, Oid dispatch, Oid idle);
static bool is_computed(Relation rel, int att, const EventColumns *columns);

void
EventsInit(void)
{
	SettingDefineBool("cqrs_es.force_generic_path",
					  "Reads and writes the log through SQL instead of the executor's insert interface.",
					  "A developer setting: the same tests run over both ways.",
					  &cqrs_es_force_generic_path, false,
					  PGC_USERSET, GUC_NOT_IN_SAMPLE);
	RelationChangeObserve(invalidate_events);
	RegistrySetGuard(refuse_declarations);
}

/*-------------------------------------------------------------------------
 * the table in the catalog
 *-------------------------------------------------------------------------
 */

/*
 * What the catalog says of the log, as a copy; looked up anew after an
 * invalidation.  Lock the table first when its indexes are to be opened: that is
 * when invalidations arrive.  Ask once where two answers have to agree.  Raises
 * 42P01 when the extension is gone, 42703 and 42P16 when columns are.
 */
EventsTable
EventsTableGet(void)
{
	EventsTable fresh;
	StreamIndexes indexes;
	uint64		started;
	Relation	rel;

	if (events_table_valid)
		return events_table;

	do
	{
		started = events_table_invalidations;
		events_table.relid = InvalidOid;
		fresh.relid = ExtensionRelid("events");
		if (started == events_table_invalidations)
			events_table.relid = fresh.relid;	/* others do not count any more */
		rel = try_table_open(fresh.relid, AccessShareLock);
	} while (rel == NULL);		/* another table has its name since we looked */
	EventColumnsOf(rel, &fresh.columns);
	indexes = StreamIndexesOf(rel, &fresh.columns);
	fresh.stream_index = indexes.guard;
	fresh.by_position = StreamIndexByPosition(rel, &fresh.columns);
	fresh.deferrable = indexes.deferrable;
	fresh.position_index = EventsPositionIndex(rel, fresh.columns.attno[EVENT_GLOBAL_POSITION]);
	fresh.id_index = find_id_index(rel, &fresh.columns);
	fresh.foreign_policies = rel->rd_rel->relrowsecurity &&
		!TenancyIsAllRowSecurity(rel, fresh.columns.attno[EVENT_TENANT_ID]);
	fresh.node = DistributionIsOurs(rel) ? DistributionNode() : -1;
	fresh.admitted = fresh.node >= 0 && DistributionIsAdmitted(fresh.node);
	fresh.local = is_plain_heap(rel) &&
		OidIsValid(fresh.position_index) &&
		DistributionOf(rel) == DISTRIBUTION_NONE;
	fresh.plain = fresh.local &&
		!fresh.foreign_policies &&
		OidIsValid(fresh.stream_index);
	fresh.straight = fresh.plain &&
		indexes.only_unique &&
		indexes.deterministic &&
		is_as_installed(rel, &fresh.columns);
	table_close(rel, AccessShareLock);

	/* published whole, and only as what it still is */
	if (started == events_table_invalidations)
	{
		events_table = fresh;
		events_table_valid = true;
	}
	return fresh;
}

/* The number of this node in a distributed log; -1 when the log is not distributed. */
int
EventsNode(void)
{
	return events_table_valid ? events_table.node : EventsTableGet().node;
}

/* Has a node of a distributed log left the cluster?  Only where that is known: on its coordinator. */
bool
EventsNodeHasLeft(int node)
{
	return EventsNode() == DISTRIBUTION_COORDINATOR && !DistributionHasNode(node);
}

/* QE608 in a distributed log, of which no session sees enough for this. */
void
EventsRefuseDistributed(const char *what)
{
	if (EventsNode() < 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NOT_IN_DISTRIBUTED_LOG),
			 errmsg("%s cannot be had in a distributed log", what),
			 errdetail("What it hangs on would have to be known on all nodes.")));
}

/* QE609 where the log is distributed and this node does not know what is declared on the others. */
void
EventsRequireAdmitted(void)
{
	int			node = EventsNode();

	if (node >= 0 && !EventsTableGet().admitted)
		DistributionReportNotAdmitted(node);
}

/*
 * The guard of registries: QE608 in a distributed log, unless the same is declared on all nodes (all_nodes.c)
 * and can be.
 */
static void
refuse_declarations(bool of_all_nodes)
{
	if (!of_all_nodes)
		EventsRefuseDistributed("such declarations");
	if (DistributionDeclares() || EventsNode() < 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NOT_IN_DISTRIBUTED_LOG),
			 errmsg("in a distributed log nothing is declared on one node alone"),
			 errhint("on_all_nodes() runs the statement on all of them.")));
}

/*
 * Counts what may have changed the table as a whole: its files, columns, indexes, triggers,
 * policies; VACUUM and ANALYZE as well.
 */
uint64
EventsTableChanges(void)
{
	return events_table_invalidations;
}

/*
 * The caller, who is about to write to the log or else to read from it, must have all of
 * `mode` (ACL_INSERT, ACL_SELECT or both) on it.  Below the executor nobody else
 * asks.  Raises 42501, 42P01 when the extension is gone, and what a module that
 * watches over the executor raises.
 */
void
EventsRequireRights(AclMode mode)
{
	EventsCheckRights(mode);
	if (ExecutorCheckPerms_hook != NULL)
		tell_watchers((mode & ACL_INSERT) != 0);
}

/* The same, of somebody who does not do it now. */
void
EventsCheckRights(AclMode mode)
{
	Oid			relid = events_table_valid ? events_table.relid : ExtensionRelid("events");

	if (pg_class_aclmask(relid, GetUserId(), mode, ACLMASK_ALL) != mode)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
}

/* May the caller read the log at all? */
bool
EventsMayRead(void)
{
	return pg_class_aclmask(ExtensionRelid("events"), GetUserId(), ACL_SELECT, ACLMASK_ALL) == ACL_SELECT;
}

/*
 * Modules that audit (pgaudit) or refuse (sepgsql) what the executor is about to do do
 * not see what is done below it.  Their hook is not made to be called from anywhere:
 * it counts on a statement that the executor has begun, and may take what it hears
 * for a part of that.  So run a statement of the same kind, as the caller, which
 * does nothing.
 */
static void
tell_watchers(bool writes)
{
	static InternalQuery read = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events WHERE false"
	};
	static InternalQuery write = {
		.sql = "INSERT INTO cqrs_es.events (" EVENT_COLUMN_LIST ") SELECT " EVENT_COLUMN_LIST
		" FROM (SELECT (NULL::cqrs_es.event).*) AS event WHERE false"
	};
	EventsTable table = EventsTableGet();

	if (writes ? !EventsWriteStraight(&table) : !EventsReadStraight(&table))
		return;					/* they will see it */
	SPI_connect();
	if (writes)
		(void) InternalQueryWrite(&write, NULL, NULL);
	else
		(void) InternalQueryRead(&read, NULL, NULL, InternalQueryFreshSnapshot());
	SPI_finish();
}

/* This function of ours does nothing where it is a trigger of the log and rows are appended; at Init. */
void
EventsIgnoreTrigger(const char *function)
{
	idle_trigger = function;
}

/*
 * May rows be written below the executor?  Our triggers fire on origin only,
 * so a session that applies someone else's changes goes the generic way,
 * where the server decides about triggers.
 */
bool
EventsWriteStraight(const EventsTable *table)
{
	return table->straight && !cqrs_es_force_generic_path &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
}

bool
EventsReadStraight(const EventsTable *table)
{
	return table->plain && !cqrs_es_force_generic_path;
}

/* Is everything to go the way by which it can go in any case? */
bool
EventsForceGenericPath(void)
{
	return cqrs_es_force_generic_path;
}

/*
 * The log, in AccessShareLock, if it can be read straight; NULL, and no lock, otherwise.
 * Decided after the lock is there, for only then is the catalog's word up to date;
 * *table is what that was.  The caller closes it.
 */
Relation
EventsOpenStraight(EventsTable *table)
{
	Relation	heap = table_open(EventsLock(AccessShareLock), NoLock);

	*table = EventsTableGet();
	if (EventsReadStraight(table))
		return heap;
	table_close(heap, AccessShareLock);
	return NULL;
}

/*
 * Lock the log, whichever table that is when the lock is there: who has it to himself may be about to make it
 * another one (partition_log).  Returns its oid.
 */
Oid
EventsLock(LOCKMODE mode)
{
	Oid			relid = EventsTableGet().relid;

	for (;;)
	{
		Oid			locked = relid;

		LockRelationOid(locked, mode);
		relid = EventsTableGet().relid;
		if (relid == locked)
			return relid;
		/* another table has its name since we looked */
		UnlockRelationOid(locked, mode);
	}
}

/*
 * ShareRowExclusiveLock on the log and its partitions: waits for all who have appended, first without
 * standing in the way of others, and keeps those off who want to, until the transaction ends.
 */
void
EventsLockOutWriters(void)
{
	LockHolders holders = {0};
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, EventsTableGet().relid);
	LockHoldersAdd(&holders, &tag, ShareRowExclusiveLock);
	LockHoldersAwait(&holders);
	/* rows can be inserted into a partition by its own name */
	list_free(find_all_inheritors(EventsLock(ShareRowExclusiveLock), ShareRowExclusiveLock, NULL));
}

/*
 * A snapshot to read the log with: the newest one, or, unless it has to be that, the
 * transaction's above READ COMMITTED.  The log is locked before it is taken, and until
 * EventsSnapshotRelease, which belongs to this: else somebody may give the table
 * other files meanwhile whose rows the snapshot does not show, though they were committed long
 * ago (pg_repack, ALTER TABLE), and a reader would take them for gaps.  Registered.
 */
LogSnapshot
EventsSnapshotTake(bool newest)
{
	LogSnapshot taken = {.relid = EventsLock(AccessShareLock)};

	/* partitions stay locked to the end, as any SQL that reads them leaves them */
	if (get_rel_relkind(taken.relid) == RELKIND_PARTITIONED_TABLE)
		list_free(find_all_inheritors(taken.relid, AccessShareLock, NULL));
	taken.snapshot = RegisterSnapshot(newest ? GetLatestSnapshot() : InternalQueryFreshSnapshot());
	return taken;
}

void
EventsSnapshotRelease(LogSnapshot snapshot)
{
	UnregisterSnapshot(snapshot.snapshot);
	UnlockRelationOid(snapshot.relid, AccessShareLock);
}

/* Is the caller subject to row security of the log beyond our own policy? */
bool
EventsRowSecurity(void)
{
	EventsTable table = EventsTableGet();

	return table.foreign_policies &&
		check_enable_rls(table.relid, InvalidOid, true) == RLS_ENABLED;
}

/* The oid of the composite type cqrs_es.event. */
Oid
EventsTypeOid(void)
{
	Oid			type = event_type_oid;

	if (!OidIsValid(type))
	{
		uint64		started = event_type_invalidations;
		Oid			relid = ExtensionRelid("event");

		type = get_rel_type_id(relid);
		if (started == event_type_invalidations)
		{
			event_type_relid = relid;
			event_type_oid = type;
		}
	}
	return type;
}

/* While an oid is not known, every relation may be the one. */
static void
invalidate_events(Oid relid)
{
	/* indexes and triggers of a table invalidate the table itself, too */
	if (relid == InvalidOid || !OidIsValid(events_table.relid) || relid == events_table.relid)
	{
		events_table_valid = false;
		events_table_invalidations++;
	}
	if (relid == InvalidOid || !OidIsValid(event_type_oid) || relid == event_type_relid)
	{
		event_type_oid = InvalidOid;
		event_type_invalidations++;
	}
}

/* The index of the log, or a partition of it, whose first key is the position; it may be a user's replacement. */
Oid
EventsPositionIndex(Relation rel, AttrNumber position)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
			index->rd_index->indnatts >= 1 &&
			index->rd_index->indkey.values[0] == position &&
			(index->rd_indoption[0] & INDOPTION_DESC) == 0 &&
			RelationGetIndexPredicate(index) == NIL)
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

/*
 * An index that leads from a stream and an event's id to the event: a user's, by event_id alone, or
 * with columns of the stream's key before it.
 */
static Oid
find_id_index(Relation rel, const EventColumns *columns)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (finds_ids(index, columns))
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

static bool
finds_ids(Relation index, const EventColumns *columns)
{
	Form_pg_index form = index->rd_index;
	int			i;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid || form->indcheckxmin ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attno = form->indkey.values[i];

		if (attno == columns->attno[EVENT_EVENT_ID])
			return index->rd_opfamily[i] == get_opclass_family(GetDefaultOpClass(UUIDOID, BTREE_AM_OID));
		if ((attno != columns->attno[EVENT_AGGREGATE_TYPE] &&
			 attno != columns->attno[EVENT_AGGREGATE_ID] &&
			 attno != columns->attno[EVENT_TENANT_ID]) ||
			index->rd_opfamily[i] != TEXT_BTREE_FAM_OID ||
			!get_collation_isdeterministic(index->rd_indcollation[i]))
			return false;
	}
	return false;
}

/* All rows in this one heap? */
static bool
is_plain_heap(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
		!rel->rd_rel->relispartition &&
		!rel->rd_rel->relhassubclass;
}

/*
 * Would the executor do with an inserted row just what we do?  Not when there
 * are rules, columns that it would compute, or INSERT triggers beside our own
 * three enabled ones.
 */
static bool
is_as_installed(Relation rel, const EventColumns *columns)
{
	Oid			admit = ExtensionFindFunction("admit_event");
	Oid			dispatch = ExtensionFindFunction("dispatch_event");
	Oid			idle = idle_trigger ? ExtensionFindFunction(idle_trigger) : InvalidOid;
	int			att;

	if (rel->rd_rules != NULL || !are_our_triggers(rel->trigdesc, admit, dispatch, idle))
		return false;
	for (att = 0; att < RelationGetNumberOfAttributes(rel); att++)
		if (is_computed(rel, att, columns))
			return false;
	return true;
}

/* Looks at a cache's memory: nothing in here may look into the catalog. */
static bool
are_our_triggers(const TriggerDesc *triggers, Oid admit, Oid dispatch, Oid idle)
{
	int			ours = 0;
	int			i;

	for (i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		/* a restore may have enabled the idle one for everybody */
		if (!TRIGGER_FOR_INSERT(trigger->tgtype) ||
			(OidIsValid(idle) && trigger->tgfoid == idle))
			continue;
		if ((trigger->tgfoid != admit && trigger->tgfoid != dispatch) ||
			trigger->tgenabled == TRIGGER_DISABLED ||
			trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			return false;
		ours++;
	}
	return ours == 3;
}

/* Is this a column beside ours that the executor would fill in or check? */
static bool
is_computed(Relation rel, int att, const EventColumns *columns)
{
	Form_pg_attribute form = TupleDescAttr(RelationGetDescr(rel), att);
	Oid			type = form->atttypid;
	int			column;

	if (form->attisdropped)
		return false;
	for (column = 0; column < EVENT_NCOLUMNS; column++)
		if (columns->attno[column] == att + 1)
			return false;
	if (form->atthasdef || form->attidentity || form->attgenerated)
		return true;
	return get_typtype(type) == TYPTYPE_DOMAIN;
}

/*-------------------------------------------------------------------------
 * one event
 *-------------------------------------------------------------------------
 */

/*
 * The event that a row of the log, or of a part of it, is; its values point into the row.
 * False, and *event is none, where a column is null: nobody can be sure of a row of others.
 */
bool
EventFromTuple(Relation rel, HeapTuple tuple, Event *event)
{
	EventColumns columns;
	int			column;

	event->row = NULL;
	event->append_version = 0;
	EventColumnsOf(rel, &columns);
	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		bool		isnull;

		event->values[column] = heap_getattr(tuple, columns.attno[column], RelationGetDescr(rel), &isnull);
		if (isnull)
			return false;
	}
	return true;
}

/* Is it the same event, whatever its payload and metadata? */
bool
EventIsSame(const Event *a, const Event *b)
{
	int			column;

	for (column = 0; column < EVENT_PAYLOAD; column++)
	{
		int16		length;
		bool		by_value;

		get_typlenbyval(EventColumnType(column), &length, &by_value);
		if (length == -1 ? !TextEqual(EventText(a, column), EventText(b, column)) :
			!datumIsEqual(a->values[column], b->values[column], by_value, length))
			return false;
	}
	return true;
}

/* A copy with values of its own, palloc'd in the current memory context. */
Event *
EventCopy(const Event *event)
{
	Event	   *copy = palloc(sizeof(Event));
	int			column;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		int16		length;
		bool		by_value;

		get_typlenbyval(EventColumnType(column), &length, &by_value);
		copy->values[column] = datumCopy(event->values[column], by_value, length);
	}
	copy->row = NULL;
	copy->append_version = event->append_version;
	return copy;
}

/* The event's stream; the texts point into the event. */
void
EventKey(const Event *event, StreamKey *key)
{
	key->aggregate_type = EventText(event, EVENT_AGGREGATE_TYPE);
	key->aggregate_id = EventText(event, EVENT_AGGREGATE_ID);
	key->tenant_id = EventText(event, EVENT_TENANT_ID);
}

/* The event as a value of type cqrs_es.event; palloc'd. */
Datum
EventToComposite(const Event *event)
{
	static const bool nulls[EVENT_NCOLUMNS] = {false};
	TupleDesc	desc = lookup_rowtype_tupdesc(EventsTypeOid(), -1);
	Datum		result;

	if (desc->natts != EVENT_NCOLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type cqrs_es.event has %d attributes, expected %d",
						desc->natts, EVENT_NCOLUMNS)));
	if (event->row)
		result = heap_copy_tuple_as_datum(event->row, desc);
	else
		result = HeapTupleGetDatum(heap_form_tuple(desc, (Datum *) event->values,
												   (bool *) nulls));
	ReleaseTupleDesc(desc);
	return result;
}
