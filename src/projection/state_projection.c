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
 * row needs no protection of its own beyond its lock.  The row is there for everybody, so
 * all events are in it, whatever row security of the log would show whoever appends.
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
#include "base/definer.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/stream_key.h"
#include "aggregate/fold.h"
#include "projection/state_projection.h"

/* The plans hang on its chunk of memory. */
struct StateProjection
{
	const char *projection;
	Oid			table;
	text	   *aggregate_type;
	Definer		definer;

	/* for the table as it was called and looked then; NULL until first used */
	char	   *table_name;
	bool		has_tenant;
	DefinerStatement *read;
	DefinerStatement *write;
};

/* The parameters of both statements, in this order. */
typedef struct StateRow
{
	const StreamKey *key;
	const FoldedState *folded;	/* NULL: not known yet */
} StateRow;

static const Oid row_types[] = {TEXTOID, TEXTOID, INT8OID, JSONBOID};

static bool is_declared(const char *projection);
static void describe_table(Oid table, char **name, bool *has_tenant);
static void make_statements(StateProjection *state, MemoryContext memory,
							const char *table_name, bool has_tenant);
static void bind_row(const DefinerStatement *statement, ParamListInfo params,
					 const void *source);
static bool read_row(StateProjection *state, const StreamKey *key, FoldedState *folded);
static void write_row(StateProjection *state, const StreamKey *key, const FoldedState *folded);

static const DefinerKind state_kind = {
	.defined = "defined the handler",
	.parse_mode = RAW_PARSE_DEFAULT,
	.nparams = lengthof(row_types),
	.numbered = row_types,
	.bind = bind_row
};

/*
 * One for a table, in the current memory context; what it is given is not copied.
 * The definer is the projection's owner.
 */
StateProjection *
StateProjectionMake(const char *projection, Oid table, text *aggregate_type,
					const Definer *definer)
{
	StateProjection *state = palloc0(sizeof(StateProjection));

	state->projection = projection;
	state->table = table;
	state->aggregate_type = aggregate_type;
	state->definer = *definer;
	return state;
}

/*
 * Could it handle an event now: can the table hold states, and may the definer
 * keep them there?  Raises QE101, 42P01, 42703 when columns are missing, 42P10 when
 * nothing makes view_id (and tenant_id) unique, 42501.
 */
void
StateProjectionCheck(const StateProjection *state)
{
	static const char *const columns[] = {"view_id", "version", "payload"};
	StateProjection fresh = *state;
	char	   *name;
	bool		has_tenant;
	size_t		i;

	(void) AggregateRequire(state->aggregate_type);
	describe_table(state->table, &name, &has_tenant);
	for (i = 0; i < lengthof(columns); i++)
		if (get_attnum(state->table, columns[i]) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s has no column \"%s\"", name, columns[i]),
					 errdetail("A table of states has the columns view_id, version and payload."),
					 errhint("CREATE TABLE %s (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL)",
							 name)));
	make_statements(&fresh, CurrentMemoryContext, name, has_tenant);
	/* planning finds out whether there is a unique index */
	DefinerStatementCheck(fresh.read);
	DefinerStatementCheck(fresh.write);
}

/*
 * Bring the row of the event's stream up to the event, or a replayed one's to the
 * end of the stream; false when there was nothing to do.  Between SPI_connect and
 * SPI_finish.  Raises what reducers raise, 55000 for a tenant's event when the table does not tell tenants apart,
 * 42P01, and what the statements do.
 */
bool
StateProjectionRun(StateProjection *state, const Event *event, bool replayed)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;
	char	   *name;
	bool		has_tenant;

	EventKey(event, &key);
	if (AggregateGet(key.aggregate_type) == NULL && !is_declared(state->projection))
		return false;			/* both were dropped while we waited for something */
	aggregate = AggregateRequire(key.aggregate_type);
	describe_table(state->table, &name, &has_tenant);
	if (!has_tenant && VARSIZE_ANY_EXHDR(key.tenant_id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s does not tell tenants apart", name),
				 errhint("Add a column tenant_id to it and to its primary key.")));
	if (state->read == NULL || strcmp(name, state->table_name) != 0 ||
		has_tenant != state->has_tenant)
		make_statements(state, GetMemoryChunkContext(state), name, has_tenant);

	if (!read_row(state, &key, &folded))
	{
		folded.version = 0;
		folded.state = aggregate->initial_state;
	}
	if (folded.version >= EventSequence(event))
		return false;
	if (folded.version == EventSequence(event) - 1 && !replayed)
	{
		Event		next = *event;

		FoldMore(&folded, aggregate, &key, &next, 1);
	}
	else
		folded = FoldWholeStream(aggregate, &key, replayed ? PG_INT64_MAX : EventSequence(event));
	write_row(state, &key, &folded);
	return true;
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

/* Fill in the statements for the table as it is now. */
static void
make_statements(StateProjection *state, MemoryContext memory, const char *table_name,
				bool has_tenant)
{
	MemoryContext caller = MemoryContextSwitchTo(memory);
	StateProjection fresh = *state;
	char	   *sql;

	fresh.table_name = pstrdup(table_name);
	fresh.has_tenant = has_tenant;
	sql = psprintf("SELECT version::pg_catalog.int8, payload::pg_catalog.jsonb FROM %s"
				   " WHERE view_id OPERATOR(pg_catalog.=) $1%s FOR UPDATE",
				   table_name,
				   has_tenant ? " AND tenant_id OPERATOR(pg_catalog.=) $2" : "");
	fresh.read = DefinerStatementMake(&state_kind, sql, &state->definer);
	sql = psprintf("INSERT INTO %s (view_id, version, payload%s) VALUES ($1, $3, $4%s)"
				   " ON CONFLICT (view_id%s) DO UPDATE SET"
				   " version = excluded.version, payload = excluded.payload",
				   table_name,
				   has_tenant ? ", tenant_id" : "",
				   has_tenant ? ", $2" : "",
				   has_tenant ? ", tenant_id" : "");
	fresh.write = DefinerStatementMake(&state_kind, sql, &state->definer);
	MemoryContextSwitchTo(caller);
	/* an error on the way leaves what was there before, not half of this */
	*state = fresh;
}

static void
bind_row(const DefinerStatement *statement, ParamListInfo params, const void *source)
{
	const StateRow *row = source;
	Datum		values[] = {PointerGetDatum(row->key->aggregate_id), PointerGetDatum(row->key->tenant_id),
		row->folded ? Int64GetDatum(row->folded->version) : (Datum) 0,
		row->folded ? JsonbPGetDatum(row->folded->state) : (Datum) 0};
	size_t		i;

	for (i = 0; i < lengthof(row_types); i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = i >= 2 && row->folded == NULL;
		params->params[i].pflags = 0;
		params->params[i].ptype = row_types[i];
	}
}

/* The row as it is now, locked; false when there is none, or none with a state. */
static bool
read_row(StateProjection *state, const StreamKey *key, FoldedState *folded)
{
	StateRow	wanted = {.key = key};
	QueryRow	row;
	bool		has_no_version;
	bool		has_no_state;
	Datum		version;
	Datum		payload;
	int			rc = DefinerStatementRun(state->read, &wanted, 1);

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not read a state: %s", SPI_result_code_string(rc));
	if (SPI_processed == 0)
		return false;
	row = InternalQueryRow(0);
	version = InternalQueryDatum(&row, "version", &has_no_version);
	payload = InternalQueryDatum(&row, "payload", &has_no_state);
	if (has_no_version || has_no_state)
		return false;
	folded->version = DatumGetInt64(version);
	folded->state = DatumGetJsonbPCopy(payload);
	return true;
}

static void
write_row(StateProjection *state, const StreamKey *key, const FoldedState *folded)
{
	StateRow	row = {.key = key,.folded = folded};
	int			rc = DefinerStatementRun(state->write, &row, 0);

	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not write a state: %s", SPI_result_code_string(rc));
}
