/*-------------------------------------------------------------------------
 * projection.c
 *	  Read models kept current in the appending transaction: what a projection
 *	  is, how it is declared, and which ones an event concerns.
 *
 * A projection is a name, a choice of aggregate types, tags that an event must have, the
 * tables that it keeps, and a handler per event type or for all of them, '*' (handler.c); or
 * it keeps the states of one aggregate type (state_projection.c).
 *
 * The lock of a projection.  Before anything runs for an event, the read models
 * of all projections that it concerns are locked as for writing, in the order
 * of their oids, to the end of the transaction; also those of paused ones, for which
 * nothing runs here at all.  (A projection without read models, or one of whose
 * read models is missing, locks the table cqrs_es.projections instead.)  Whoever locks
 * them against writers knows then that every event that has been told of is
 * committed, and that those to come will be dealt with by the registry as it is left,
 * for it is looked at again after the lock was got.  That is what makes rebuild,
 * pause and resume exact (projection_rebuild.c).  What else is done with read models is
 * in read_model.c.
 *
 * An asynchronous projection locks cqrs_es.projections, whatever it keeps: its read
 * models are no business of who appends, who must not wait for what is done to them.
 * So whoever changes what is locked, the mode or the tables, first locks against
 * writers what was locked until then; a writer who dealt with an event by the old row
 * is through when the lock is got, and all others look at the new one.
 *
 * Two caches: projections by name, each loaded once with the plans of its handlers;
 * and by event type which of them have something to do, as pointers into the first.
 * (Caches of one generation are thrown away together, see registry.c.)  A rebuild
 * has its own copy of a projection instead, made from the row that it has locked.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid_d.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/text.h"
#include "log/dispatch.h"
#include "log/event_filter.h"
#include "log/events.h"
#include "aggregate/aggregate.h"
#include "projection/projection.h"
#include "projection/read_model.h"
#include "projection/skipped_event.h"
#include "projection/state_projection.h"

/* Which projections have something to do for an event type. */
typedef struct EventTypeProjections
{
	RegistryEntry entry;		/* its key is the event type */
	int			n;
	Projection **projections;	/* in the order of their names */
} EventTypeProjections;

static void load_projection(void *entry, const text *name, MemoryContext memory);
static void load_event_type(void *entry, const text *event_type, MemoryContext memory);

static RegistryCache projection_cache = {
	.name = "cqrs_es projections",.entry_size = sizeof(Projection),.load = load_projection
};

static RegistryCache event_type_cache = {
	.name = "cqrs_es projections of event types",.entry_size = sizeof(EventTypeProjections),
	.load = load_event_type,.table = "projections"
};

StaticAssertDecl(PROJECTION_NAME_MAX_BYTES < REGISTRY_KEY_BYTES, "names of projections are keys of registries");
StaticAssertDecl(EVENT_TYPE_MAX_BYTES < REGISTRY_KEY_BYTES, "event types are keys of registries");

static ProjectionHandlers load_handlers = NULL;

/* set by the room above, at Init */
const ProjectionAsync *ProjectionAsyncPart = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_create_projection);
PG_FUNCTION_INFO_V1(cqrs_es_alter_projection);
PG_FUNCTION_INFO_V1(cqrs_es_drop_projection);

static Datum create_projection(PG_FUNCTION_ARGS);
static void refuse_drop_of_aggregate(const text *type);
static void check_distributed(bool is_other);
static bool is_there(const text *name, Datum *values, const char *nulls, const bool *is_given);
static void check_states(const text *name, ArrayType *read_models, text *aggregate_type, Oid owner);
static void alter_owned(const text *name, NullableDatum given_owner, NullableDatum given_tables);
static void lock_changed_tables(const Projection *projection, ArrayType *read_models);
static void require_may_give_to(Oid owner);
static ArrayType *oid_array(const Projection *projection);
static void require_owner(const text *name);
static Projection **choose_concerned(const EventTypeProjections *found, const text *aggregate_type,
									 int *n);
static bool concerns(const Projection *projection, const text *aggregate_type);
static Oid	next_lock(Projection *const *projections, int n, Oid after);
static uint64 read_projection(const text *name, Snapshot snapshot);
static void fill(Projection *projection, const QueryRow *row);
static void set_types(Projection *projection, const QueryRow *row);
static void set_read_models(Projection *projection, const QueryRow *row);

void
ProjectionInit(void)
{
	static const AggregatePart part = {.refuse_drop = refuse_drop_of_aggregate};

	RegistryRegisterOfAllNodes("projections");
	ExtensionToldBy("projections");
	AggregateRegister(&part);
}

/* How handlers are read; called by Inits only. */
void
ProjectionSetHandlers(ProjectionHandlers load)
{
	load_handlers = load;
}

/* What is done about asynchronous projections; called by Inits only. */
void
ProjectionSetAsync(const ProjectionAsync *async)
{
	ProjectionAsyncPart = async;
}

/* An aggregate type stays while a projection keeps its states: 2BP01. */
static void
refuse_drop_of_aggregate(const text *type)
{
	static InternalQuery query = {
		.sql = "SELECT name FROM cqrs_es.projections"
		" WHERE state_of OPERATOR(pg_catalog.=) $1 ORDER BY name LIMIT 1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(type);

	SPI_connect();
	if (RegistryRead(&query, &value) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop aggregate type \"%s\" because a projection keeps its states",
						text_to_cstring(type)),
				 errdetail("It is projection \"%s\".", InternalQueryText(&row, "name")),
				 errhint("Drop that first.")));
	}
	SPI_finish();
}

/*-------------------------------------------------------------------------
 * declaring
 *-------------------------------------------------------------------------
 */

/*
 * SQL: create_projection(name, aggregate_types, read_models, state_of, backfill, mode,
 * per_stream, tags).  One that is to be filled from the log begins as a paused one that has
 * handled nothing yet.  Who creates the same again, running a migration twice, changes
 * nothing.
 */
Datum
cqrs_es_create_projection(PG_FUNCTION_ARGS)
{
	ExtensionRefuseOlder();
	return create_projection(fcinfo);
}

static Datum
create_projection(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.projections"
		" (name, aggregate_types, read_models, owner, state_of, paused, mode, per_stream, tags, handled_position)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN $6 OR $7 OPERATOR(pg_catalog.=) 'async' THEN 0 END)"
		" ON CONFLICT DO NOTHING",
		.nargs = 9,.argtypes = {TEXTOID, TEXTARRAYOID, REGCLASSARRAYOID, REGROLEOID, TEXTOID, BOOLOID,
		TEXTOID, BOOLOID, TEXTARRAYOID}
	};
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	bool		backfill = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	bool		is_async = !PG_ARGISNULL(5) && ProjectionModeIsAsync(PG_GETARG_TEXT_PP(5));
	bool		per_stream = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
	bool		is_given[2] = {!PG_ARGISNULL(5), !PG_ARGISNULL(6)};
	Datum		values[9] = {PointerGetDatum(name), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2),
		ObjectIdGetDatum(GetUserId()), PG_GETARG_DATUM(3), BoolGetDatum(backfill),
		CStringGetTextDatum(is_async ? "async" : "sync"), BoolGetDatum(per_stream), PG_GETARG_DATUM(7)};
	char		nulls[9] = {' ', PG_ARGISNULL(1) ? 'n' : ' ', PG_ARGISNULL(2) ? 'n' : ' ', ' ',
		PG_ARGISNULL(3) ? 'n' : ' ', ' ', ' ', ' ', PG_ARGISNULL(7) ? 'n' : ' '};

	ReadOnlyPrevent(fcinfo);
	if (EventsNode() >= 0)
		check_distributed(backfill || is_async || !PG_ARGISNULL(3) || !PG_ARGISNULL(7) || PG_ARGISNULL(2));
	ProjectionCheckOrder(is_async, per_stream);
	if (!PG_ARGISNULL(3) && !PG_ARGISNULL(7))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tags and state_of cannot be given both"),
				 errdetail("A state is made of all events of its stream.")));
	if (!PG_ARGISNULL(3))
		AggregateLock(TextArgument(fcinfo->args[3], "state_of", AGGREGATE_TYPE_MAX_BYTES));
	if (!PG_ARGISNULL(1))
		EventFilterCheckTypes(PG_GETARG_ARRAYTYPE_P(1), "aggregate_types", "aggregate type",
							  AGGREGATE_TYPE_MAX_BYTES, false);
	if (!PG_ARGISNULL(7))
		EventFilterCheckTypes(PG_GETARG_ARRAYTYPE_P(7), "tags", "tag", EVENT_TAG_MAX_BYTES, false);
	if (!PG_ARGISNULL(2))
		values[2] = PointerGetDatum(ReadModelsCheck(PG_GETARG_ARRAYTYPE_P(2), GetUserId()));
	if (!PG_ARGISNULL(3))
	{
		if (!PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("aggregate_types and state_of cannot be given both")));
		check_states(name, PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2), PG_GETARG_TEXT_PP(3),
					 GetUserId());
		values[1] = PointerGetDatum(construct_array(&values[4], 1, TEXTOID, -1, false, TYPALIGN_INT));
		nulls[1] = ' ';
	}
	DefinerRequireRole(GetUserId());
	do
	{
		/* somebody else may create or drop it between the two */
		CHECK_FOR_INTERRUPTS();
		if (is_there(name, values, nulls, is_given))
			PG_RETURN_VOID();
	} while (RegistryWrite(&query, values, nulls) == 0);
	if (is_async)
		ProjectionAsyncPart->created(ProjectionLoad(name));
	if (!PG_ARGISNULL(2))
		ReadModelsWarnShared(text_to_cstring(name));
	if (backfill)
		ereport(NOTICE,
				(errmsg("projection \"%s\" is paused until it has been filled", text_to_cstring(name)),
				 errhint("When its handlers are defined, fill it with SELECT cqrs_es.resume_projection(%s).",
						 quote_literal_cstr(text_to_cstring(name)))));
	PG_RETURN_VOID();
}

/*
 * In a distributed log a projection is one of handlers that run where an event is appended, which keep
 * tables whose rows are stored there (ReadModelsCheck).  QE608 for what else was asked for.
 */
static void
check_distributed(bool is_other)
{
	if (is_other)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_IN_DISTRIBUTED_LOG),
				 errmsg("such a projection cannot be had in a distributed log"),
				 errdetail("It must be synchronous, have read_models, and neither state_of, tags nor backfill.")));
}

/* Is it the mode "async", or "sync"?  22023 for any other. */
bool
ProjectionModeIsAsync(const text *mode)
{
	char	   *word = text_to_cstring(mode);

	if (strcmp(word, "sync") != 0 && strcmp(word, "async") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode must be \"sync\" or \"async\"")));
	return strcmp(word, "async") == 0;
}

/* Can a projection be so?  22023. */
void
ProjectionCheckOrder(bool is_async, bool per_stream)
{
	if (per_stream && !is_async)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("per_stream is for projections of mode \"async\""),
				 errdetail("In mode \"sync\" an event that fails fails its append.")));
}

/*
 * Is there such a projection already?  Then it must be the caller's own (42501), and
 * the same: what it has in its tables is of the old choice, so another one is refused
 * (42710).  Whether it is paused is left as it is, and so are mode and per_stream that
 * are not given.  Locks its row.
 */
static bool
is_there(const text *name, Datum *values, const char *nulls, const bool *is_given)
{
	static InternalQuery query = {
		.sql = "SELECT " REGISTRY_ROLE("p.owner", "p.owner_name") " AS owner, pg_catalog.concat_ws(', ',"
		" CASE WHEN p.state_of IS DISTINCT FROM $4 THEN pg_catalog.concat('state_of is ', coalesce(p.state_of, 'NULL'))"
		" WHEN NOT coalesce(p.aggregate_types OPERATOR(pg_catalog.@>) $2 AND p.aggregate_types OPERATOR(pg_catalog.<@) $2,"
		" p.aggregate_types IS NULL AND $2 IS NULL)"
		" THEN pg_catalog.concat('aggregate_types is ', coalesce(p.aggregate_types::pg_catalog.text, 'NULL')) END,"
		" CASE WHEN NOT coalesce(p.tags OPERATOR(pg_catalog.@>) $7 AND p.tags OPERATOR(pg_catalog.<@) $7,"
		" p.tags IS NULL AND $7 IS NULL)"
		" THEN pg_catalog.concat('tags is ', coalesce(p.tags::pg_catalog.text, 'NULL')) END,"
		" CASE WHEN NOT (t.read_models OPERATOR(pg_catalog.@>) g.read_models AND t.read_models OPERATOR(pg_catalog.<@) g.read_models)"
		" THEN pg_catalog.concat('read_models is ', t.read_models::pg_catalog.regclass[]::pg_catalog.text) END) AS differences,"
		" pg_catalog.concat_ws(', ', CASE WHEN p.mode OPERATOR(pg_catalog.<>) $5 THEN pg_catalog.concat('mode is ', p.mode) END,"
		" CASE WHEN p.per_stream OPERATOR(pg_catalog.<>) $6 THEN pg_catalog.concat('per_stream is ', p.per_stream) END) AS others"
		" FROM cqrs_es.projections AS p"
		" CROSS JOIN LATERAL (SELECT coalesce(" REGISTRY_READ_MODELS ", '{}')::pg_catalog.oid[] AS read_models) AS t"
		" CROSS JOIN LATERAL (SELECT coalesce($3, '{}')::pg_catalog.oid[] AS read_models) AS g"
		" WHERE p.name OPERATOR(pg_catalog.=) $1 FOR KEY SHARE OF p",
		.nargs = 7,.argtypes = {TEXTOID, TEXTARRAYOID, REGCLASSARRAYOID, TEXTOID, TEXTOID, BOOLOID,
		TEXTARRAYOID}
	};
	Datum		wanted[7] = {values[0], values[1], values[2], values[4], values[6], values[7], values[8]};
	char		wanted_nulls[7] = {' ', nulls[1], nulls[2], nulls[4], is_given[0] ? ' ' : 'n',
		is_given[1] ? ' ' : 'n', nulls[8]};
	bool		found;

	SPI_connect();
	found = RegistryWriteRows(&query, wanted, wanted_nulls) > 0;
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);
		char	   *differences = InternalQueryText(&row, "differences");
		char	   *others = InternalQueryText(&row, "others");

		require_owner(name);
		if (differences[0] != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("projection \"%s\" already exists, and is another one", text_to_cstring(name)),
					 errdetail("Its %s.", differences),
					 errhint("Its tables have the rows of that. Drop it with drop_projection(), create it anew, define its handlers, and rebuild it.")));
		if (others[0] != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("projection \"%s\" already exists, and is another one", text_to_cstring(name)),
					 errdetail("Its %s.", others),
					 errhint("alter_projection() changes that.")));
	}
	SPI_finish();
	return found;
}

/*
 * Can the owner keep the states of aggregates in the table, of which there must be
 * one?  22023, and what StateProjectionCheck raises.
 */
static void
check_states(const text *name, ArrayType *read_models, text *aggregate_type, Oid owner)
{
	Definer		definer = {
		.role = owner,
		.name = GetUserNameFromId(owner, false),
		.search_path = "pg_catalog, pg_temp"
	};
	Oid		   *tables = NULL;
	int			n = 0;

	if (read_models)
		tables = ReadModelOids(read_models, &n);
	if (n != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state_of needs one read model, the table that gets the states"),
				 errhint("CREATE TABLE ... (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL)")));
	StateProjectionCheck(StateProjectionMake(text_to_cstring(name), tables[0], aggregate_type, &definer));
}

/*
 * SQL: alter_projection(name, owner, read_models, mode, per_stream); null leaves each as
 * it is.
 *
 * A writer who has told the projection of an event holds the lock of the tables that it
 * had then.  Who pauses the projection later asks for those that it has by then.  So the
 * tables of before are locked against writers here: who has told is through, and who
 * comes looks at the registry behind us.
 */
Datum
cqrs_es_alter_projection(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);

	ReadOnlyPrevent(fcinfo);
	EventsRefuseDistributed("alter_projection()");
	if (!PG_ARGISNULL(3))
		(void) ProjectionModeIsAsync(PG_GETARG_TEXT_PP(3));
	if (!PG_ARGISNULL(1) || !PG_ARGISNULL(2) || (PG_ARGISNULL(3) && PG_ARGISNULL(4)))
		alter_owned(name, fcinfo->args[1], fcinfo->args[2]);
	if (!PG_ARGISNULL(3) || !PG_ARGISNULL(4))
		ProjectionAsyncPart->alter(name, fcinfo->args[3], fcinfo->args[4]);
	PG_RETURN_VOID();
}

/* Another owner, other read models; null as it is. */
static void
alter_owned(const text *name, NullableDatum given_owner, NullableDatum given_tables)
{
	static InternalQuery lock = {
		.sql = "SELECT " PROJECTION_COLUMNS " FROM cqrs_es.projections AS p"
		" WHERE p.name OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery alter = {
		.sql = "UPDATE cqrs_es.projections SET owner = coalesce($2, owner),"
		" read_models = coalesce($3, read_models) WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 3,.argtypes = {TEXTOID, REGROLEOID, REGCLASSARRAYOID}
	};
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.projections WHERE name OPERATOR(pg_catalog.=) $1"
		" AND owner IS NOT DISTINCT FROM coalesce($2, owner)"
		" AND read_models IS NOT DISTINCT FROM coalesce($3, read_models)",
		.nargs = 3,.argtypes = {TEXTOID, REGROLEOID, REGCLASSARRAYOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Projection *projection;
	ArrayType  *read_models;
	Oid			owner;
	char	   *owner_name;
	QueryRow	row;
	Datum		values[3] = {PointerGetDatum(name), given_owner.value, given_tables.value};
	char		nulls[3] = {' ', given_owner.isnull ? 'n' : ' ', given_tables.isnull ? 'n' : ' '};

	SPI_connect();
	(void) ProjectionLockRow(&lock, name, false);
	row = InternalQueryRow(0);
	projection = ProjectionMake(&row, caller);
	SPI_finish();
	if (projection->is_async)
		ProjectionAsyncPart->lock(name);

	owner = given_owner.isnull ? projection->owner.role : DatumGetObjectId(given_owner.value);
	if (given_owner.isnull)
		RegistryNameRequireRole(owner, projection->owner.name, "owns the projection");
	else
		require_may_give_to(owner);
	owner_name = GetUserNameFromId(owner, false);
	if (!given_tables.isnull)
		lock_changed_tables(projection, DatumGetArrayTypeP(given_tables.value));
	read_models = given_tables.isnull ? oid_array(projection) : DatumGetArrayTypeP(given_tables.value);
	values[2] = PointerGetDatum(ReadModelsCheck(read_models, owner));
	if (projection->keeps_states && (!given_tables.isnull || projection->missing == NIL))
		check_states(name, read_models, projection->types[0], owner);
	LockSharedObject(AuthIdRelationId, owner, 0, AccessShareLock);
	RegistryNameRequireRole(owner, owner_name, "is to own the projection");
	if (RegistryHas(&same, values, nulls))
		return;
	(void) RegistryWrite(&alter, values, nulls);
	if (projection->is_async)
		ProjectionAsyncPart->given(name, owner);
	if (!given_tables.isnull)
		ReadModelsWarnShared(text_to_cstring(name));
}

/* As for ALTER TABLE ... OWNER TO: the caller must be able to become that role. */
static void
require_may_give_to(Oid owner)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
	compat_check_can_set_role(GetUserId(), owner);
}

/*
 * Lock the tables that a projection has, against writers, and those that it is to have,
 * against their drop; all in the order of their oids.  What an asynchronous one locks
 * stays what it is.
 */
static void
lock_changed_tables(const Projection *projection, ArrayType *read_models)
{
	List	   *tables = NIL;
	int			nold = projection->is_async ? 0 : projection->nlocks;
	ListCell   *lc;
	Oid		   *given;
	int			n;
	int			i;

	given = ReadModelOids(read_models, &n);
	for (i = 0; i < n; i++)
		tables = list_append_unique_oid(tables, given[i]);
	for (i = 0; i < nold; i++)
		tables = list_append_unique_oid(tables, projection->locks[i]);
	list_sort(tables, list_oid_cmp);
	foreach(lc, tables)
	{
		Oid			table = lfirst_oid(lc);
		bool		is_old = false;

		for (i = 0; i < nold; i++)
			is_old |= projection->locks[i] == table;
		if (is_old)
			ReadModelsLock(&table, 1, GetUserId());
		else if (OidIsValid(table))
			LockRelationOid(table, AccessShareLock);
	}
}

/* The read models that a projection has, as an array of regclass. */
static ArrayType *
oid_array(const Projection *projection)
{
	Datum	   *elements = palloc(Max(projection->nread_models, 1) * sizeof(Datum));
	int			i;

	for (i = 0; i < projection->nread_models; i++)
		elements[i] = ObjectIdGetDatum(projection->read_models[i]);
	return construct_array(elements, projection->nread_models, REGCLASSOID, sizeof(Oid), true,
						   TYPALIGN_INT);
}

/* SQL: drop_projection(name, if_exists); its handlers go with it, its read models stay. */
Datum
cqrs_es_drop_projection(PG_FUNCTION_ARGS)
{
	static InternalQuery drop_handlers = {
		.sql = "DELETE FROM cqrs_es.handlers WHERE projection OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.projections WHERE name OPERATOR(pg_catalog.=) $1"
		" RETURNING " REGISTRY_ROLE("owner", "owner_name") " AS owner, mode OPERATOR(pg_catalog.=) 'async' AS is_async",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Datum		value = PointerGetDatum(name);
	bool		is_async = false;
	bool		found;

	ReadOnlyPrevent(fcinfo);
	ExtensionRefuseOlder();
	SPI_connect();
	found = ProjectionLockRow(&drop, name, RegistryIfExists(fcinfo->args[1]));
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);

		is_async = DatumGetBool(InternalQueryDatum(&row, "is_async", NULL));
	}
	SPI_finish();
	if (!found)
		PG_RETURN_VOID();
	if (is_async)
	{
		/* it may be the one that is run, whose batch would be gone */
		if (DispatchIsBusy())
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("%s cannot be called by a handler", "drop_projection()")));
		ProjectionAsyncPart->lock(name);
		ProjectionAsyncPart->dropped(name);
	}
	(void) RegistryWrite(&drop_handlers, &value, NULL);
	SkippedEventForget(text_to_cstring(name));
	PG_RETURN_VOID();
}

/*
 * Lock or change the row of a projection with a query that has its name as
 * parameter and gives its owner; the row is then in SPI_tuptable.
 * The projection must be there (42704; with if_exists: a NOTICE, and false) and be the
 * caller's own (42501): asked before, so that nobody else locks it, and of the row that was locked, since
 * somebody else may have made one of that name meanwhile.  Between SPI_connect
 * and SPI_finish.
 */
bool
ProjectionLockRow(InternalQuery *query, const text *name, bool if_exists)
{
	static InternalQuery unlocked = {
		.sql = "SELECT " REGISTRY_ROLE("owner", "owner_name") " AS owner FROM cqrs_es.projections"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	if (RegistryRead(&unlocked, &value) == 0)
	{
		RegistryReportMissing(if_exists, ERRCODE_UNDEFINED_OBJECT,
							  PROJECTION_MISSING_HINT,
							  psprintf("projection \"%s\" does not exist", text_to_cstring(name)));
		return false;
	}
	require_owner(name);
	if (RegistryWriteRows(query, &value, NULL) == 0)
	{
		RegistryReportMissing(if_exists, ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("projection \"%s\" was dropped meanwhile", text_to_cstring(name)));
		return false;
	}
	require_owner(name);
	return true;
}

/* The caller must have the rights of the owner in the row that was read. */
static void
require_owner(const text *name)
{
	QueryRow	row = InternalQueryRow(0);

	if (!has_privs_of_role(GetUserId(), DatumGetObjectId(InternalQueryDatum(&row, "owner", NULL))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection \"%s\"", text_to_cstring(name))));
}

/*-------------------------------------------------------------------------
 * which projections an event concerns
 *-------------------------------------------------------------------------
 */

/*
 * The projections that an event concerns by its types, in the order of their names, and how
 * many they are; their locks have been taken, to the end of the transaction.  Between
 * RegistryEnter and RegistryLeave, for as long as they may be used; the array is the
 * caller's, to be freed, and NULL where there is none.
 *
 * The locks come first; while we waited for one the registry may have
 * changed.  It is looked at again, then, until it names no table that is not
 * locked: from that look on it cannot change in what matters here.  (Not until
 * it stays as it was: that may never be so.)
 */
Projection **
ProjectionFind(const Event *event, int *n)
{
	text	   *aggregate_type = EventText(event, EVENT_AGGREGATE_TYPE);
	EventTypeProjections *found;
	Projection **concerned = NULL;
	List	   *locked = NIL;
	bool		waited;

	do
	{
		Oid			lock = InvalidOid;

		waited = false;
		found = RegistryLookup(&event_type_cache, EventText(event, EVENT_EVENT_TYPE));
		if (concerned)
			pfree(concerned);
		concerned = choose_concerned(found, aggregate_type, n);
		while (OidIsValid(lock = next_lock(concerned, *n, lock)))
			if (!list_member_oid(locked, lock))
			{
				LockRelationOid(lock, RowExclusiveLock);
				locked = lappend_oid(locked, lock);
				waited = true;
			}
	} while (waited && found->entry.generation != RegistryGeneration());
	return concerned;
}

/* Of those for an event type the ones for an aggregate type; NULL: there is none. */
static Projection **
choose_concerned(const EventTypeProjections *found, const text *aggregate_type, int *n)
{
	Projection **concerned = NULL;
	int			i;

	*n = 0;
	for (i = 0; i < found->n; i++)
	{
		if (!concerns(found->projections[i], aggregate_type))
			continue;
		if (concerned == NULL)
			concerned = palloc((found->n - i) * sizeof(*concerned));
		concerned[(*n)++] = found->projections[i];
	}
	return concerned;
}

/*
 * Act as the projection's owner, until RoleSwitchBack, as what definers wrote acts as them.
 * 42704 when that role is gone.
 */
RoleSwitch
ProjectionSwitchToOwner(const Projection *projection)
{
	RegistryNameRequireRole(projection->owner.role, projection->owner.name, "owns the projection");
	return DefinerSwitchRole(projection->owner.role, projection->owner.search_path);
}

/* Is it for events of this aggregate type? */
static bool
concerns(const Projection *projection, const text *aggregate_type)
{
	int			i;

	if (projection->all_types)
		return true;
	for (i = 0; i < projection->ntypes; i++)
		if (TextEqual(projection->types[i], aggregate_type))
			return true;
	return false;
}

/*
 * Is it for this event?  Its locks are taken whatever tags the event has, which are there by
 * then.
 */
bool
ProjectionWants(const Projection *projection, const Event *event)
{
	return concerns(projection, EventText(event, EVENT_AGGREGATE_TYPE)) &&
		EventFilterMatches(&projection->filter, event);
}

/* The next table, by its oid, that one of these projections locks; InvalidOid after the last. */
static Oid
next_lock(Projection *const *projections, int n, Oid after)
{
	Oid			next = InvalidOid;
	int			i;
	int			lock;

	for (i = 0; i < n; i++)
		for (lock = 0; lock < projections[i]->nlocks; lock++)
			if (projections[i]->locks[lock] > after &&
				(!OidIsValid(next) || projections[i]->locks[lock] < next))
				next = projections[i]->locks[lock];
	return next;
}

/*-------------------------------------------------------------------------
 * loading
 *-------------------------------------------------------------------------
 */

/*
 * A projection as it is declared now, or NULL; a copy of the caller's own, in the
 * current memory context.
 */
Projection *
ProjectionLoad(const text *name)
{
	MemoryContext caller = CurrentMemoryContext;
	Projection *projection = NULL;

	SPI_connect();
	if (read_projection(name, NULL) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		projection = ProjectionMake(&row, caller);
	}
	SPI_finish();
	return projection;
}

/* The same from a row with PROJECTION_COLUMNS, in a memory context. */
Projection *
ProjectionMake(const QueryRow *row, MemoryContext memory)
{
	MemoryContext caller = MemoryContextSwitchTo(memory);
	Projection *projection = palloc0(sizeof(Projection));

	fill(projection, row);
	MemoryContextSwitchTo(caller);
	return projection;
}

/*
 * Fill the caches.  A projection and its handlers as of one moment: by the time that
 * they are needed another one may have its name, whose lock has not been taken.
 */
static void
load_projection(void *entry, const text *name, MemoryContext memory)
{
	Projection *projection = entry;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	if (read_projection(name, snapshot) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(memory);

		fill(projection, &row);
		projection->handlers = load_handlers(projection, snapshot);
		MemoryContextSwitchTo(spi);
	}
	UnregisterSnapshot(snapshot);
}

static void
load_event_type(void *entry, const text *event_type, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT p.name FROM cqrs_es.projections AS p WHERE p.state_of IS NOT NULL"
		" OR EXISTS (SELECT FROM cqrs_es.handlers AS h"
		" WHERE h.projection OPERATOR(pg_catalog.=) p.name"
		" AND (h.event_type OPERATOR(pg_catalog.=) $1"
		" OR h.event_type OPERATOR(pg_catalog.=) '" PROJECTION_ALL_EVENT_TYPES "')) ORDER BY p.name",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	EventTypeProjections *found = entry;
	Datum		value = PointerGetDatum(event_type);
	uint64		n = RegistryRead(&query, &value);
	uint64		i;

	found->projections = MemoryContextAlloc(memory, Max(n, 1) * sizeof(Projection *));
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		Projection *projection = RegistryLookup(&projection_cache,
												DatumGetTextPP(InternalQueryDatum(&row, "name", NULL)));

		/* it may have been dropped meanwhile */
		if (projection->name != NULL)
			found->projections[found->n++] = projection;
	}
}

/* As of a snapshot, NULL for the newest.  Between SPI_connect and SPI_finish. */
static uint64
read_projection(const text *name, Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT " PROJECTION_COLUMNS " FROM cqrs_es.projections AS p"
		" WHERE p.name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	return RegistryReadAsOf(&query, &value, snapshot);
}

/*
 * From a row with PROJECTION_COLUMNS.  All of it, and its handlers later, are
 * allocated in what is the current memory context now.
 */
static void
fill(Projection *projection, const QueryRow *row)
{
	projection->memory = CurrentMemoryContext;
	projection->owner.role = DatumGetObjectId(InternalQueryDatum(row, "owner", NULL));
	projection->owner.name = InternalQueryText(row, "owner_name");
	projection->owner.search_path = "pg_catalog, pg_temp";
	projection->paused = DatumGetBool(InternalQueryDatum(row, "paused", NULL));
	projection->is_async = strcmp(InternalQueryText(row, "mode"), "async") == 0;
	projection->per_stream = DatumGetBool(InternalQueryDatum(row, "per_stream", NULL));
	projection->keeps_states = InternalQueryText(row, "state_of") != NULL;
	set_types(projection, row);
	set_read_models(projection, row);
	projection->name = InternalQueryText(row, "name");
}

static void
set_types(Projection *projection, const QueryRow *row)
{
	Datum		types = InternalQueryDatum(row, "aggregate_types", &projection->all_types);
	NullableDatum tags;
	Datum	   *elements;
	int			i;

	projection->filter.tenant_ids.all = projection->filter.aggregate_types.all =
		projection->filter.event_types.all = true;
	tags.value = InternalQueryDatum(row, "tags", &tags.isnull);
	if (!tags.isnull)
		tags.value = PointerGetDatum(DatumGetArrayTypePCopy(tags.value));
	EventFilterSetTags(&projection->filter, tags);
	if (projection->all_types)
		return;
	deconstruct_array(DatumGetArrayTypePCopy(types), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &projection->ntypes);
	projection->types = palloc(Max(projection->ntypes, 1) * sizeof(text *));
	for (i = 0; i < projection->ntypes; i++)
		projection->types[i] = DatumGetTextPP(elements[i]);
}

/* Read models, what is missing of them, and what is locked therefore. */
static void
set_read_models(Projection *projection, const QueryRow *row)
{
	Datum		tables = InternalQueryDatum(row, "read_models", NULL);
	bool		no_names;
	Datum		names = InternalQueryDatum(row, "read_model_names", &no_names);
	char	   *missing;
	int			next = 0;
	int			n;
	int			i;

	projection->read_models = ReadModelOids(DatumGetArrayTypeP(tables), &n);
	for (i = 0; i < n; i++)
		if (OidIsValid(projection->read_models[i]))
			projection->read_models[projection->nread_models++] = projection->read_models[i];
	qsort(projection->read_models, projection->nread_models, sizeof(Oid), oid_cmp);
	while ((missing = RegistryNameMissingTable(tables, names, no_names, &next)) != NULL)
		projection->missing = lappend(projection->missing, missing);

	projection->locks = palloc((n + 1) * sizeof(Oid));
	projection->nlocks = projection->is_async ? 0 : projection->nread_models;
	memcpy(projection->locks, projection->read_models, projection->nlocks * sizeof(Oid));
	if (projection->nlocks < n || n == 0)
		projection->locks[projection->nlocks++] = ExtensionRelid("projections");
	qsort(projection->locks, projection->nlocks, sizeof(Oid), oid_cmp);
}
