/*-------------------------------------------------------------------------
 * state_projection.c
 *	  The ready-made projection: the current state of aggregates as a table
 *	  (view_id, version, payload), one row per stream.
 *
 * An event is folded into the row that is there, not replayed: the row says of
 * which version it is, so what it lacks and what it already has is known.  A
 * row that is missing or behind by more than this event (the projection is
 * younger than the stream) is replayed once.  When old events are replayed, the
 * first of a stream brings its row up to the stream's end, and the others find
 * nothing left to do: a row that one transaction writes again and again becomes
 * slower each time.  Two who append to one stream do so
 * one after the other, since the log's primary key makes the second wait, so the
 * row needs no protection of its own beyond its lock.
 *
 * The table is the user's.  With a column tenant_id it holds the states of
 * several tenants side by side; without one it can hold only those of events
 * that have no tenant.  The SQL runs with the rights of the projection's owner,
 * the reducers with those of whoever appends, as in every fold.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/definer.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "aggregate/fold.h"
#include "projection/state_projection.h"

/* Lives in the cache of handlers; its plans hang on its chunk of memory. */
typedef struct StateProjection
{
	Oid			table;
	text	   *aggregate_type;

	/* the plans for the table as it was called and looked then; NULL until first used */
	char	   *table_name;
	bool		has_tenant;
	SPIPlanPtr	read;
	SPIPlanPtr	write;
}			StateProjection;

static bool is_declared(const char *projection);
static void describe_table(Oid table, char **name, bool *has_tenant);
static void prepare(StateProjection *state, char *table_name, bool has_tenant);
static SPIPlanPtr prepare_statement(const char *sql);
static bool read_row(StateProjection *state, const Handler *handler,
					 const StreamKey *key, FoldedState *folded);
static void write_row(StateProjection *state, const Handler *handler,
					  const StreamKey *key, const FoldedState *folded);

/* One for a table, in the current memory context; aggregate_type is not copied. */
struct StateProjection *
StateProjectionMake(Oid table, text *aggregate_type)
{
	StateProjection *state = palloc0(sizeof(StateProjection));

	state->table = table;
	state->aggregate_type = aggregate_type;
	return state;
}

/* Could it handle an event now?  Raises QE101 and what StateProjectionValidate does. */
void
StateProjectionCheck(const struct StateProjection *state)
{
	(void) AggregateRequire(state->aggregate_type);
	StateProjectionValidate(state->table);
}

/*
 * Can the table hold states, and may the current role keep them there?  Raises
 * 42703 when columns are missing, 42P10 when nothing makes view_id (and tenant_id)
 * unique, 42501.
 */
void
StateProjectionValidate(Oid table)
{
	static const char *const columns[] = {"view_id", "version", "payload"};
	StateProjection state = {.table = table};
	char	   *name;
	bool		has_tenant;
	size_t		i;

	SPI_connect();
	describe_table(table, &name, &has_tenant);
	for (i = 0; i < lengthof(columns); i++)
		if (get_attnum(table, columns[i]) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s has no column \"%s\"", name, columns[i]),
					 errdetail("A table of states has the columns view_id, version and payload."),
					 errhint("CREATE TABLE %s (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL)",
							 name)));
	prepare(&state, name, has_tenant);
	/* planning finds out whether there is a unique index */
	RequirePlanRights(state.read);
	RequirePlanRights(state.write);
	SPI_finish();
}

/*
 * Bring the row of the event's stream up to the event, or a replayed one's to the
 * end of the stream.  Between SPI_connect and
 * SPI_finish.  Raises what reducers raise, 55000 for a tenant's event when the
 * table does not tell tenants apart.
 */
void
StateProjectionRun(const Handler *handler, const Event *event, bool replayed)
{
	StateProjection *state = handler->state;
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;
	char	   *name;
	bool		has_tenant;

	EventKey(event, &key);
	if (AggregateGet(key.aggregate_type) == NULL && !is_declared(handler->projection))
		return;					/* both were dropped while we waited for something */
	aggregate = AggregateRequire(key.aggregate_type);
	describe_table(state->table, &name, &has_tenant);
	if (!has_tenant && VARSIZE_ANY_EXHDR(key.tenant_id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s does not tell tenants apart", name),
				 errhint("Add a column tenant_id to it and to its primary key.")));
	if (state->read == NULL || strcmp(name, state->table_name) != 0 ||
		has_tenant != state->has_tenant)
	{
		/* an error in here must not leave half of it behind */
		StateProjection fresh = *state;
		RoleSwitch	saved = HandlerBecomeDefiner(handler);

		prepare(&fresh, MemoryContextStrdup(GetMemoryChunkContext(state), name), has_tenant);
		RoleSwitchBack(&saved);
		KeepPlanWith(fresh.read, state);
		KeepPlanWith(fresh.write, state);
		*state = fresh;
	}

	if (!read_row(state, handler, &key, &folded))
	{
		folded.version = 0;
		folded.state = aggregate->initial_state;
	}
	if (folded.version >= EventSequence(event))
		return;
	if (folded.version == EventSequence(event) - 1 && !replayed)
	{
		Event		next = *event;

		FoldMore(&folded, aggregate, &key, &next, 1);
	}
	else
		folded = FoldStream(aggregate, &key, replayed ? PG_INT64_MAX : EventSequence(event));
	write_row(state, handler, &key, &folded);
}

/* Is there a projection of that name that keeps states? */
static bool
is_declared(const char *projection)
{
	static InternalQuery query = {
		.sql = "SELECT FROM cqrs_es.projections"
		" WHERE name OPERATOR(pg_catalog.=) $1 AND state_of IS NOT NULL",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);

	return RegistryRead(&query, &value) > 0;
}

/*
 * Its qualified name, palloc'd, and whether it has a column for tenants.  Locks
 * the table as for writing, so that it keeps its name and schema.  42P01.
 */
static void
describe_table(Oid table, char **name, bool *has_tenant)
{
	char	   *relname;

	LockRelationOid(table, RowExclusiveLock);
	relname = get_rel_name(table);
	if (relname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of the projection does not exist any more")));
	*name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), relname);
	*has_tenant = get_attnum(table, "tenant_id") != InvalidAttrNumber;
}

/* Fill in plans for the table as it is now, which the caller keeps or not. */
static void
prepare(StateProjection *state, char *table_name, bool has_tenant)
{
	char	   *sql;

	state->table_name = table_name;
	state->has_tenant = has_tenant;
	sql = psprintf("SELECT version::pg_catalog.int8, payload::pg_catalog.jsonb FROM %s"
				   " WHERE view_id OPERATOR(pg_catalog.=) $1%s FOR UPDATE",
				   state->table_name,
				   state->has_tenant ? " AND tenant_id OPERATOR(pg_catalog.=) $2" : "");
	state->read = prepare_statement(sql);
	sql = psprintf("INSERT INTO %s (view_id, version, payload%s) VALUES ($1, $3, $4%s)"
				   " ON CONFLICT (view_id%s) DO UPDATE SET"
				   " version = excluded.version, payload = excluded.payload",
				   state->table_name,
				   state->has_tenant ? ", tenant_id" : "",
				   state->has_tenant ? ", $2" : "",
				   state->has_tenant ? ", tenant_id" : "");
	state->write = prepare_statement(sql);
}

/* All take the same parameters: id, tenant, version, state. */
static SPIPlanPtr
prepare_statement(const char *sql)
{
	Oid			types[] = {TEXTOID, TEXTOID, INT8OID, JSONBOID};
	SPIPlanPtr	plan = SPI_prepare(sql, lengthof(types), types);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

/* The row as it is now, locked; false when there is none, or none with a state. */
static bool
read_row(StateProjection *state, const Handler *handler, const StreamKey *key,
		 FoldedState *folded)
{
	Datum		values[] = {PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id),
	(Datum) 0, (Datum) 0};
	RoleSwitch	saved = HandlerBecomeDefiner(handler);
	bool		has_no_version;
	bool		has_no_state;
	Datum		version;
	Datum		payload;
	int			rc = SPI_execute_plan(state->read, values, "  nn", false, 1);

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not read a state: %s", SPI_result_code_string(rc));
	RoleSwitchBack(&saved);
	if (SPI_processed == 0)
		return false;
	version = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &has_no_version);
	payload = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &has_no_state);
	if (has_no_version || has_no_state)
		return false;
	folded->version = DatumGetInt64(version);
	folded->state = DatumGetJsonbPCopy(payload);
	return true;
}

static void
write_row(StateProjection *state, const Handler *handler, const StreamKey *key,
		  const FoldedState *folded)
{
	Datum		values[] = {PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id),
	Int64GetDatum(folded->version), JsonbPGetDatum(folded->state)};
	RoleSwitch	saved = HandlerBecomeDefiner(handler);
	int			rc = SPI_execute_plan(state->write, values, NULL, false, 0);

	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not write a state: %s", SPI_result_code_string(rc));
	RoleSwitchBack(&saved);
}
