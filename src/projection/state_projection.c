/*-------------------------------------------------------------------------
 * state_projection.c
 *	  The ready-made projection: the current state of aggregates as a table
 *	  (view_id, version, payload), one row per stream.
 *
 * An event is folded into the row that is there, not replayed: the row says of
 * which version it is, so what it lacks and what it already has is known.  A
 * row that is missing or behind by more than this event (the projection is
 * younger than the stream) is replayed once.  When old events are replayed, the
 * first of a stream brings its row up to the stream's end, from where it is if that
 * is just before, and the others find nothing left to do: a row that one transaction writes again and again becomes
 * slower each time.  Two who append to one stream do so
 * one after the other, since the log's primary key makes the second wait, so the
 * row is read without a lock.  The row is there for everybody, so all events are in
 * it, whatever row security of the log would show whoever appends.
 *
 * Many events of one stream in one transaction leave as many versions of the row,
 * which nobody can clean up yet, and whoever looks for the row by its index meets all
 * of them.  So it is looked for where it was last written, by its ctid.  That is a
 * hint: a row that is to be seen there and has this view_id is the row, whatever has
 * happened meanwhile; where none is, it is looked for by view_id.  A lock of the row
 * would make it worse: the server carries it over from version to version, and
 * where savepoints come and go, as a list of all who had it.
 *
 * Aggregate ids are equal when their bytes are.  Types, collations and operator
 * classes that find more of them equal would put two aggregates into one row, and are
 * refused; and since a trigger could do so as well, or a later ALTER TABLE, each row
 * that is read or written says whose it is.
 *
 * The table is the user's.  With a column tenant_id it holds the states of
 * several tenants side by side; without one it can hold only those of events
 * that have no tenant.  The SQL runs with the rights of the projection's owner,
 * the reducers with those of whoever appends, as in every fold; in a replay with those
 * of the owner, too, since whoever replays has nothing to do with what was appended.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_opfamily_d.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/itemptr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/lent_session.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/stream_key.h"
#include "base/text.h"
#include "log/reserved_type.h"
#include "aggregate/fold.h"
#include "aggregate/reducer.h"
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
	DefinerStatement *read_at;
	DefinerStatement *read;
	DefinerStatement *update_at;
	DefinerStatement *insert;
	DefinerStatement *remove;

	/* where the row is that was met last, and the hash of its stream; a hint */
	ItemPointerData place;
	uint32		stream;

	/* the event that is being folded, and remains so when that fails */
	FoldWatch	watch;
};

/* The parameters of all statements, in this order. */
typedef struct StateRow
{
	const StreamKey *key;
	const FoldedState *folded;	/* NULL: not known yet */
	ItemPointer place;			/* NULL: not known */
} StateRow;

static const Oid row_types[] = {TEXTOID, TEXTOID, INT8OID, JSONBOID, TIDOID};

/* What all statements tell of a row: where it is, and whose. */
#define ROW_OF_WHOM "ctid, view_id::pg_catalog.text"

static bool is_declared(const char *projection);
static void describe_table(Oid table, char **name, bool *has_tenant);
static void check_key(Oid table, const char *name, const char *column);
static void check_indexes(Oid table, const char *name, bool has_tenant);
static bool is_arbiter(Relation index, const AttrNumber *keys, int nkeys);
static void check_index(Relation index, const char *name);
static DefinerStatement *make_statement(StateProjection *state, const char *sql,
										const char *table_name, bool has_tenant);
static void make_statements(StateProjection *state, MemoryContext memory,
							const char *table_name, bool has_tenant);
static void bind_row(const DefinerStatement *statement, ParamListInfo params,
					 const void *source);
static ItemPointer place_of(StateProjection *state, const StreamKey *key);
static uint32 stream_hash(const StreamKey *key);
static void fold_as_definer(StateProjection *state, FoldedState *folded,
							Aggregate *aggregate, const StreamKey *key, const Event *event,
							bool one_event);
static void fold(StateProjection *state, FoldedState *folded, Aggregate *aggregate,
				 const StreamKey *key, const Event *event, bool replayed, bool one_event);
static bool read_row(StateProjection *state, const StreamKey *key, FoldedState *folded);
static uint64 run_for_row(StateProjection *state, DefinerStatement *statement, int expected,
						  const StateRow *row, QueryRow *found);
static bool is_text(const QueryRow *row, const char *column, const text *expected);
static void write_row(StateProjection *state, const StreamKey *key, const FoldedState *folded);
static void remove_row(StateProjection *state, const StreamKey *key);

static const DefinerKind state_kind = {
	.defined = "defined the handler",
	.parse_mode = RAW_PARSE_DEFAULT,
	.nparams = lengthof(row_types),
	.numbered = row_types,
	.by_key = true,
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
 * nothing makes view_id (and tenant_id) unique, 42804 and 42P21 when other things are
 * equal to it than its bytes, 55000 when what makes it unique is deferrable, 42501.
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
	check_key(state->table, name, "view_id");
	if (has_tenant)
		check_key(state->table, name, "tenant_id");
	check_indexes(state->table, name, has_tenant);
	make_statements(&fresh, CurrentMemoryContext, name, has_tenant);
	/* planning finds out whether that index is one for all rows */
	DefinerStatementCheck(fresh.read);
	DefinerStatementCheck(fresh.read_at);
	DefinerStatementCheck(fresh.update_at);
	DefinerStatementCheck(fresh.insert);
}

/* Could the current role fold what it keeps?  QE101, and what ReducersRequireRights raises. */
void
StateProjectionRequireRights(const StateProjection *state)
{
	ReducersRequireRights(&AggregateRequire(state->aggregate_type)->rules);
}

/*
 * Bring the row of the event's stream up to the event; a replayed one's to the
 * end of the stream, or where one_event is said and it is the next, to the event.  False
 * when there was nothing to do.  Between SPI_connect and SPI_finish.  Raises what reducers raise, 55000
 * for a tenant's event when the table does not tell tenants apart, 42P01, 42704, and what
 * the statements do.
 */
bool
StateProjectionRun(StateProjection *state, const Event *event, bool replayed, bool one_event)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;
	char	   *name;
	bool		has_tenant;
	bool		is_there;

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
		folded.state = aggregate->rules.initial_state;
	}
	is_there = folded.version > 0;
	folded.last_event_at = DT_NOBEGIN;	/* the row does not tell */
	folded.deleted = false;
	if (folded.version >= EventSequence(event))
		return false;
	/* who redacts or deletes has nothing to do with what was appended either */
	if (replayed || ReservedTypeErases(event))
		fold_as_definer(state, &folded, aggregate, &key, event, one_event || !replayed);
	else
		fold(state, &folded, aggregate, &key, event, false, true);
	/* what is being told of may have been deleted meanwhile */
	if (!folded.deleted && folded.version > 0)
		write_row(state, &key, &folded);
	else if (is_there)
		remove_row(state, &key);
	return true;
}

/* Before a run: nothing of it has failed yet. */
void
StateProjectionBegin(StateProjection *state)
{
	state->watch.sequence = 0;
}

/*
 * Which event its run could not fold, when it has failed; it may be another one of the stream
 * than that for which it ran.  NULL: the fault was not in an event.  Good until it begins again.
 */
const FoldWatch *
StateProjectionFailedAt(const StateProjection *state)
{
	return state->watch.sequence > 0 ? &state->watch : NULL;
}

/* Will its statements probably run directly? */
bool
StateProjectionIsDirect(const StateProjection *state)
{
	return state->read != NULL && DefinerStatementIsDirect(state->read);
}

/* Reducers of a replay are for the account of who owns the projection. */
static void
fold_as_definer(StateProjection *state, FoldedState *folded, Aggregate *aggregate,
				const StreamKey *key, const Event *event, bool one_event)
{
	RoleSwitch	saved;
	LentSession lent;

	RegistryNameRequireRole(state->definer.role, state->definer.name, state_kind.defined);
	saved = DefinerSwitchRole(state->definer.role, state->definer.search_path);
	LentSessionBegin(&lent);
	PG_TRY();
	{
		fold(state, folded, aggregate, key, event, true, one_event);
	}
	PG_FINALLY();
	{
		LentSessionEnd(&lent);
	}
	PG_END_TRY();
	RoleSwitchBack(&saved);
}

/*
 * From the row, when the event is the next one, that event or all there are up to the end;
 * else anew, up to the event or to the end: also at '$redacted' and '$deleted', for what is in the row
 * has been changed, or is gone.
 */
static void
fold(StateProjection *state, FoldedState *folded, Aggregate *aggregate, const StreamKey *key,
	 const Event *event, bool replayed, bool one_event)
{
	Event		next = *event;

	if (ReservedTypeErases(event))
		*folded = FoldWholeStream(aggregate, key, one_event ? EventSequence(event) : PG_INT64_MAX, &state->watch);
	else if (folded->version != EventSequence(event) - 1 || (folded->version == 0 && !one_event))
		*folded = FoldWholeStream(aggregate, key, replayed ? PG_INT64_MAX : EventSequence(event), &state->watch);
	else if (one_event)
		FoldMore(folded, aggregate, key, &next, 1, &state->watch);
	else
		FoldOn(folded, aggregate, key, &state->watch);
	state->watch.sequence = 0;
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
	int			guc_level = 0;

	LockRelationOid(table, RowExclusiveLock);
	relname = get_rel_name(table);
	if (relname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of the projection does not exist any more")));
	/* statements are kept by it, so it must not depend on the session */
	if (quote_all_identifiers)
	{
		guc_level = NewGUCNestLevel();
		(void) set_config_option("quote_all_identifiers", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	*name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), relname);
	if (guc_level > 0)
		AtEOXact_GUC(true, guc_level);
	*has_tenant = get_attnum(table, "tenant_id") != InvalidAttrNumber;
}

/*
 * Are two aggregates, or tenants, always two rows, as far as the column tells?  Raises 42804,
 * 42P21.
 */
static void
check_key(Oid table, const char *name, const char *column)
{
	AttrNumber	attnum = get_attnum(table, column);
	Oid			type = getBaseType(get_atttype(table, attnum));
	Oid			typeid;
	int32		typmod;
	Oid			collation;

	if (type != TEXTOID && type != VARCHAROID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table %s is of type %s", column, name, format_type_be(type)),
				 errdetail("It could not tell all aggregates apart."),
				 errhint("Let it be text.")));
	get_atttypetypmodcoll(table, attnum, &typeid, &typmod, &collation);
	if (!get_collation_isdeterministic(collation))
		ereport(ERROR,
				(errcode(ERRCODE_COLLATION_MISMATCH),
				 errmsg("column \"%s\" of table %s has a collation that is not deterministic",
						column, name),
				 errdetail("It could not tell all aggregates apart."),
				 errhint("Give it another one, as COLLATE \"C\".")));
}

/*
 * Do so the unique indexes that ON CONFLICT goes by?  There must be one, and none that is
 * deferrable.  Raises 42P10, 42804, 42P21, 55000.
 */
static void
check_indexes(Oid table, const char *name, bool has_tenant)
{
	AttrNumber	keys[2] = {get_attnum(table, "view_id"), get_attnum(table, "tenant_id")};
	const char *columns = has_tenant ? "tenant_id, view_id" : "view_id";
	Relation	rel = table_open(table, NoLock);
	bool		is_unique = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_arbiter(index, keys, has_tenant ? 2 : 1))
		{
			check_index(index, name);
			is_unique = true;
		}
		index_close(index, NoLock);
	}
	table_close(rel, NoLock);
	if (!is_unique)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("table %s has no unique index on just %s", name, columns),
				 errdetail("Without one an aggregate could have several rows."),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (%s)", name, columns)));
}

/* Is it a unique index on just these columns? */
static bool
is_arbiter(Relation index, const AttrNumber *keys, int nkeys)
{
	Form_pg_index form = index->rd_index;
	int			i;

	if (!form->indisunique || form->indnkeyatts != nkeys)
		return false;
	for (i = 0; i < nkeys; i++)
		if (form->indkey.values[i] != keys[0] &&
			(nkeys == 1 || form->indkey.values[i] != keys[1]))
			return false;
	return true;
}

static void
check_index(Relation index, const char *name)
{
	int			i;

	if (!index->rd_index->indimmediate)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("constraint \"%s\" of table %s is deferrable",
						RelationGetRelationName(index), name),
				 errdetail("States are written with ON CONFLICT, which needs one that is not."),
				 errhint("Let it be NOT DEFERRABLE.")));

	for (i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		if (index->rd_opfamily[i] != TEXT_BTREE_FAM_OID &&
			index->rd_opfamily[i] != TEXT_PATTERN_BTREE_FAM_OID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("index \"%s\" of table %s has an operator class of its own",
							RelationGetRelationName(index), name),
					 errdetail("It could not tell all aggregates apart.")));
		if (!get_collation_isdeterministic(index->rd_indcollation[i]))
			ereport(ERROR,
					(errcode(ERRCODE_COLLATION_MISMATCH),
					 errmsg("index \"%s\" of table %s has a collation that is not deterministic",
							RelationGetRelationName(index), name),
					 errdetail("It could not tell all aggregates apart.")));
	}
}

/*
 * A statement, in the current memory context, of which %1$s is the table, %2$s what
 * to tell of a row, and %3$s whose row it is.
 */
static DefinerStatement *
make_statement(StateProjection *state, const char *sql, const char *table_name, bool has_tenant)
{
	return DefinerStatementMake(&state_kind,
								psprintf(sql, table_name,
										 has_tenant ? ROW_OF_WHOM ", tenant_id::pg_catalog.text" : ROW_OF_WHOM,
										 has_tenant ?
										 "view_id OPERATOR(pg_catalog.=) $1 AND tenant_id OPERATOR(pg_catalog.=) $2" :
										 "view_id OPERATOR(pg_catalog.=) $1"),
								&state->definer);
}

/* Fill in the statements for the table as it is now. */
static void
make_statements(StateProjection *state, MemoryContext memory, const char *table_name,
				bool has_tenant)
{
	MemoryContext caller = MemoryContextSwitchTo(memory);
	StateProjection fresh = *state;

	fresh.table_name = pstrdup(table_name);
	fresh.has_tenant = has_tenant;
	ItemPointerSetInvalid(&fresh.place);
	fresh.read = make_statement(state, "SELECT version::pg_catalog.int8, payload::pg_catalog.jsonb, %2$s"
								" FROM %1$s WHERE %3$s", table_name, has_tenant);
	fresh.read_at = make_statement(state, "SELECT version::pg_catalog.int8, payload::pg_catalog.jsonb, %2$s"
								   " FROM %1$s WHERE ctid OPERATOR(pg_catalog.=) $5 AND %3$s",
								   table_name, has_tenant);
	fresh.update_at = make_statement(state, "UPDATE %1$s SET version = $3, payload = $4"
									 " WHERE ctid OPERATOR(pg_catalog.=) $5 AND %3$s RETURNING %2$s",
									 table_name, has_tenant);
	fresh.insert = make_statement(state, has_tenant ?
								  "INSERT INTO %1$s (view_id, version, payload, tenant_id) VALUES ($1, $3, $4, $2)"
								  " ON CONFLICT (view_id, tenant_id) DO UPDATE SET"
								  " version = excluded.version, payload = excluded.payload RETURNING %2$s" :
								  "INSERT INTO %1$s (view_id, version, payload) VALUES ($1, $3, $4)"
								  " ON CONFLICT (view_id) DO UPDATE SET"
								  " version = excluded.version, payload = excluded.payload RETURNING %2$s",
								  table_name, has_tenant);
	fresh.remove = make_statement(state, "DELETE FROM %1$s WHERE %3$s RETURNING %2$s", table_name, has_tenant);
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
		row->folded ? JsonbPGetDatum(row->folded->state) : (Datum) 0,
		PointerGetDatum(row->place)};
	bool		nulls[] = {false, false, row->folded == NULL, row->folded == NULL, row->place == NULL};
	size_t		i;

	for (i = 0; i < lengthof(row_types); i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls[i];
		params->params[i].pflags = 0;
		params->params[i].ptype = row_types[i];
	}
}

/* Where the stream's row may be; NULL: nothing is known. */
static ItemPointer
place_of(StateProjection *state, const StreamKey *key)
{
	return ItemPointerIsValid(&state->place) && state->stream == stream_hash(key) ? &state->place : NULL;
}

static uint32
stream_hash(const StreamKey *key)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(key->aggregate_id), VARSIZE_ANY_EXHDR(key->aggregate_id)) ^
		hash_bytes((const unsigned char *) VARDATA_ANY(key->tenant_id), VARSIZE_ANY_EXHDR(key->tenant_id));
}

/* The row as it is now; false when there is none, or none with a state. */
static bool
read_row(StateProjection *state, const StreamKey *key, FoldedState *folded)
{
	StateRow	wanted = {.key = key,.place = place_of(state, key)};
	QueryRow	row;
	bool		has_no_version;
	bool		has_no_state;
	Datum		version;
	Datum		payload;

	if (wanted.place == NULL || run_for_row(state, state->read_at, SPI_OK_SELECT, &wanted, &row) == 0)
	{
		wanted.place = NULL;
		if (run_for_row(state, state->read, SPI_OK_SELECT, &wanted, &row) == 0)
			return false;
	}
	version = InternalQueryDatum(&row, "version", &has_no_version);
	payload = InternalQueryDatum(&row, "payload", &has_no_state);
	if (has_no_version || has_no_state)
		return false;
	folded->version = DatumGetInt64(version);
	folded->state = DatumGetJsonbPCopy(payload);
	return true;
}

/* Where it was read; or else, as where nothing was, wherever it has come to be. */
static void
write_row(StateProjection *state, const StreamKey *key, const FoldedState *folded)
{
	StateRow	row = {.key = key,.folded = folded,.place = place_of(state, key)};
	QueryRow	written;

	if (row.place != NULL &&
		run_for_row(state, state->update_at, SPI_OK_UPDATE_RETURNING, &row, &written) > 0)
		return;
	row.place = NULL;
	(void) run_for_row(state, state->insert, SPI_OK_INSERT_RETURNING, &row, &written);
}

/* The stream has been deleted.  Raises 42501 where the definer may write states only. */
static void
remove_row(StateProjection *state, const StreamKey *key)
{
	StateRow	row = {.key = key};
	QueryRow	removed;

	(void) run_for_row(state, state->remove, SPI_OK_DELETE_RETURNING, &row, &removed);
}

/*
 * Run one of the statements; how many rows it found or wrote, at most one, which is in
 * *found.  Notes the row's place.  23000 when it is another aggregate's.
 */
static uint64
run_for_row(StateProjection *state, DefinerStatement *statement, int expected, const StateRow *row,
			QueryRow *found)
{
	uint64		n;

	if (EventsForceGenericPath() || !DefinerStatementRunDirectly(statement, row, &n, found))
	{
		int			rc = DefinerStatementRun(statement, row, 0);

		if (rc != expected)
			elog(ERROR, "could not read or write a state: %s", SPI_result_code_string(rc));
		n = SPI_processed;
		if (n > 0)
			*found = InternalQueryRow(0);
	}
	state->stream = stream_hash(row->key);
	ItemPointerSetInvalid(&state->place);
	if (n == 0)
		return 0;
	if (!is_text(found, "view_id", row->key->aggregate_id) ||
		(state->has_tenant && !is_text(found, "tenant_id", row->key->tenant_id)))
		ereport(ERROR,
				(errcode(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION),
				 errmsg("table %s does not tell aggregates apart", state->table_name),
				 errdetail("The row of aggregate \"%s\" is not its own, byte by byte.",
						   text_to_cstring(row->key->aggregate_id)),
				 errhint("view_id must keep every id as it is: a text, without a trigger that changes it.")));
	if (expected != SPI_OK_DELETE_RETURNING)
		state->place = *(ItemPointer) DatumGetPointer(InternalQueryDatum(found, "ctid", NULL));
	return n;
}

/* Is this column of a row just these bytes? */
static bool
is_text(const QueryRow *row, const char *column, const text *expected)
{
	bool		isnull;
	Datum		value = InternalQueryDatum(row, column, &isnull);

	return !isnull && TextEqual(DatumGetTextPP(value), expected);
}
