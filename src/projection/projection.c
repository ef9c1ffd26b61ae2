/*-------------------------------------------------------------------------
 * projection.c
 *	  Read models kept current in the appending transaction: the registry of
 *	  projections and handlers, and the observer that runs them.
 *
 * A projection is a name, a choice of aggregate types, and a handler per event
 * type or for all of them, '*' (handler.c); or it keeps the states of one
 * aggregate type (state_projection.c).  For a new event the projections that
 * concern it run one after the other, in the order of their names, as triggers
 * do; within one the handler of '*' comes first.  The observer is called when
 * all events of an append are in the log.
 *
 * The lock of a projection.  Before anything runs for an event, the read models
 * of all projections that it concerns are locked as for writing, in the order
 * of their oids, to the end of the transaction; also those of paused ones, for
 * which nothing runs at all.  (A projection without read models locks the table
 * cqrs_es.projections instead.)  Whoever locks them
 * against writers knows then that every event that has been told of is
 * committed, and that those to come will be dealt with by the registry as he
 * leaves it, for it is looked at again after the lock was got.  That is what
 * makes rebuild, pause and resume exact (projection_rebuild.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/registry_name.h"
#include "base/settings.h"
#include "log/dispatch.h"
#include "log/events.h"
#include "log/upcast.h"
#include "aggregate/aggregate.h"
#include "projection/handler.h"
#include "projection/projection.h"
#include "projection/state_projection.h"

/* for every event type */
#define ALL_EVENT_TYPES "*"

/* what it takes to make a table a read model */
#define READ_MODEL_RIGHTS (ACL_INSERT | ACL_UPDATE | ACL_DELETE)

/* A handler, and what its projection says of it. */
typedef struct TypedHandler
{
	Handler		handler;
	bool		all_types;
	int			ntypes;
	text	  **types;			/* aggregate types, unless it is for all */
	bool		paused;
	int			nlocks;			/* what its projection locks, in this order */
	Oid		   *locks;
}			TypedHandler;

/* What happens for an event type. */
typedef struct EventTypeHandlers
{
	RegistryEntry entry;		/* its key is the event type */
	int			n;
	TypedHandler **handlers;	/* each its own chunk: plans hang on it */
}			EventTypeHandlers;

static void load_handlers(void *entry, const text *event_type, MemoryContext memory);

static RegistryCache handler_cache = {
	.name = "cqrs_es handlers",.entry_size = sizeof(EventTypeHandlers),.load = load_handlers
};

PG_FUNCTION_INFO_V1(cqrs_es_create_projection);
PG_FUNCTION_INFO_V1(cqrs_es_define_handler);
PG_FUNCTION_INFO_V1(cqrs_es_drop_handler);
PG_FUNCTION_INFO_V1(cqrs_es_drop_projection);
PG_FUNCTION_INFO_V1(cqrs_es_projection_errors);

static void refuse_drop_of_aggregate(const text *type);
static void check_types(ArrayType *types);
static void check_read_models(ArrayType *read_models);
static void check_states(const text *name, Oid table, text *aggregate_type);
static bool is_signature(const char *given);
static ArrayBuildState *missing_names(ArrayBuildState *errors, const text *name);
static void save_handler(FunctionCallInfo fcinfo, const char *statement, const char *function,
						 const Definer * definer);
static bool begin_change(const text *name);
static void require_owner(const text *name);
static void project(const Event *event);
static Oid	next_lock(const EventTypeHandlers *entry, const text *aggregate_type, Oid after);
static bool run_handlers(EventTypeHandlers *entry, const text *aggregate_type,
						 const char *only, const Event *event);
static EventTypeHandlers *handlers_of(const text *event_type);
static uint64 read_handlers(bool by_event_type, Datum value);
static TypedHandler *make_handler(HeapTuple row, TupleDesc desc);
static void set_types(TypedHandler *typed, Datum types);
static Oid *tables_of(ArrayType *array, int *n);
static bool concerns(const TypedHandler *handler, const text *aggregate_type);

void
ProjectionInit(void)
{
	static const AggregatePart part = {.refuse_drop = refuse_drop_of_aggregate};

	RegistryRegister("projections");
	RegistryRegister("handlers");
	RegistryFunctionRegister("handlers",
							 "SELECT function, pg_catalog.format('the handler of projection \"%s\" for event type \"%s\"',"
							 " projection, event_type) AS used_as FROM cqrs_es.handlers WHERE function IS NOT NULL");
	AggregateRegister(&part);
	DispatchRegister(project);
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
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: create_projection(name, aggregate_types, read_models, state_of, backfill).
 * One that is to be filled from the log begins as a paused one that has handled
 * nothing yet.
 */
Datum
cqrs_es_create_projection(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.projections"
		" (name, aggregate_types, read_models, owner, state_of, paused, handled_position)"
		" VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $6 THEN 0 END) ON CONFLICT DO NOTHING",
		.nargs = 6,.argtypes = {TEXTOID, TEXTARRAYOID, REGCLASSARRAYOID, REGROLEOID, TEXTOID, BOOLOID}
	};
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	bool		backfill = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	Oid		   *tables = NULL;
	int			ntables = 0;
	Datum		values[6] = {PointerGetDatum(name), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2),
		ObjectIdGetDatum(GetUserId()), PG_GETARG_DATUM(3), BoolGetDatum(backfill)};
	char		nulls[6] = {' ', PG_ARGISNULL(1) ? 'n' : ' ', PG_ARGISNULL(2) ? 'n' : ' ', ' ',
		PG_ARGISNULL(3) ? 'n' : ' ', ' '};

	if (!PG_ARGISNULL(3))
		AggregateLock(RequiredText(fcinfo->args[3], "state_of", AGGREGATE_TYPE_MAX_BYTES), false);
	if (!PG_ARGISNULL(1))
		check_types(PG_GETARG_ARRAYTYPE_P(1));
	if (!PG_ARGISNULL(2))
		check_read_models(PG_GETARG_ARRAYTYPE_P(2));
	if (!PG_ARGISNULL(3))
	{
		if (!PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("aggregate_types and state_of cannot be given both")));
		if (!PG_ARGISNULL(2))
			tables = tables_of(PG_GETARG_ARRAYTYPE_P(2), &ntables);
		if (ntables != 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("state_of needs one read model, the table that gets the states"),
					 errhint("CREATE TABLE ... (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL)")));
		check_states(name, tables[0], PG_GETARG_TEXT_PP(3));
		values[1] = PointerGetDatum(construct_array(&values[4], 1, TEXTOID, -1, false, TYPALIGN_INT));
		nulls[1] = ' ';
	}
	RequireRole(GetUserId());
	if (RegistryWrite(&query, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("projection \"%s\" already exists", text_to_cstring(name))));
	if (backfill)
		ereport(NOTICE,
				(errmsg("projection \"%s\" is paused until it has been filled", text_to_cstring(name)),
				 errhint("When its handlers are defined, fill it with SELECT cqrs_es.resume_projection(%s).",
						 quote_literal_cstr(text_to_cstring(name)))));
	PG_RETURN_VOID();
}

/* Aggregate types as append_event takes them, in an array of one dimension. */
static void
check_types(ArrayType *types)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	if (ARR_NDIM(types) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("aggregate_types must be a one-dimensional array")));
	if (ARR_NDIM(types) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aggregate_types must not be empty"),
				 errhint("Leave it out for all.")));
	deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (i = 0; i < n; i++)
	{
		NullableDatum element = {.value = elements[i],.isnull = nulls[i]};

		(void) RequiredText(element, "aggregate type", AGGREGATE_TYPE_MAX_BYTES);
	}
}

/*
 * Tables that the caller may write in every way: appending sessions will lock
 * them, and a rebuild empties them and fills them again.  They are locked to the
 * end of the transaction (AccessShareLock), so that nobody drops them meanwhile.
 */
static void
check_read_models(ArrayType *read_models)
{
	Oid		   *tables;
	int			n;
	int			i;

	if (array_contains_nulls(read_models))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("read_models must not contain nulls")));
	/* who drops one waits, and finds that it is in use (protect_read_models) */
	tables = ProjectionLocks(PointerGetDatum(read_models), &n);
	for (i = 0; i < n; i++)
		LockRelationOid(tables[i], AccessShareLock);
	tables = tables_of(read_models, &n);
	for (i = 0; i < n; i++)
	{
		char		kind = get_rel_relkind(tables[i]);

		if (kind == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("read model does not exist"),
					 errdetail("There is no table with OID %u.", tables[i])));
		if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is not a table", get_rel_name(tables[i]))));
		if (get_rel_persistence(tables[i]) == RELPERSISTENCE_TEMP)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is a temporary table", get_rel_name(tables[i])),
					 errdetail("Other sessions could not write it.")));
		if (pg_class_aclmask(tables[i], GetUserId(), READ_MODEL_RIGHTS, ACLMASK_ALL) != READ_MODEL_RIGHTS)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(tables[i]));
		if (get_rel_namespace(tables[i]) == get_namespace_oid(CQRS_ES_SCHEMA, false))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is a table of %s itself",
							get_rel_name(tables[i]), CQRS_ES_SCHEMA),
					 errdetail("To pause the projection would lock it against all writers.")));
	}
}

/* Can the current role keep the states of aggregates in this table? */
static void
check_states(const text *name, Oid table, text *aggregate_type)
{
	Definer		owner = {
		.role = GetUserId(),
		.name = GetUserNameFromId(GetUserId(), false),
		.search_path = "pg_catalog, pg_temp"
	};

	StateProjectionCheck(StateProjectionMake(text_to_cstring(name), table, aggregate_type, &owner));
}

/* SQL: define_handler(projection, event_type, handler); replaces an earlier one. */
Datum
cqrs_es_define_handler(PG_FUNCTION_ARGS)
{
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Definer		definer = {.role = GetUserId()};
	char	   *given;

	if (begin_change(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot have handlers", text_to_cstring(name)),
				 errdetail("It keeps the states of aggregates.")));
	definer.search_path = DefinerSearchPath();
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null")));
	given = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (is_signature(given))
	{
		Oid			argtypes[1] = {EventsTypeOid()};
		Datum		signature;

		signature = RegistryFunctionSignature(RegistryFunctionByName(given), InvalidOid,
											  argtypes, lengthof(argtypes),
											  "A handler is a function (event cqrs_es.event).");
		save_handler(fcinfo, NULL, TextDatumGetCString(signature), &definer);
	}
	else
		save_handler(fcinfo, given, NULL, &definer);
	PG_RETURN_VOID();
}

/*
 * A statement, or the signature of a function?  No statement has its first
 * parenthesis before any space, but for those in quoted names.
 */
static bool
is_signature(const char *given)
{
	const char *c = given;
	bool		quoted = false;

	while (*c && (quoted || strchr("( \t\r\n;", *c) == NULL))
		if (*c++ == '"')
			quoted = !quoted;
	return c > given && *c == '(';
}

/* Check a handler, a statement or a function, and store it. */
static void
save_handler(FunctionCallInfo fcinfo, const char *statement, const char *function,
			 const Definer * definer)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.handlers AS h"
		" (projection, event_type, statement, function, definer, search_path)"
		" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (projection, event_type) DO UPDATE SET"
		" statement = excluded.statement, function = excluded.function,"
		" definer = excluded.definer, definer_name = excluded.definer_name,"
		" search_path = excluded.search_path",
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	text	   *event_type = RequiredText(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[6] = {PG_GETARG_DATUM(0), PointerGetDatum(event_type)};
	char		nulls[6] = {' ', ' ', statement ? ' ' : 'n', function ? ' ' : 'n', ' ', ' '};

	DefinerStatementDefine(HandlerStatement(statement, function, definer));
	if (statement)
		values[2] = CStringGetTextDatum(statement);
	if (function)
		values[3] = CStringGetTextDatum(function);
	values[4] = ObjectIdGetDatum(definer->role);
	values[5] = CStringGetTextDatum(definer->search_path);
	(void) RegistryWrite(&query, values, nulls);
}

/*
 * Before anything else is looked at when its handlers change: make the projection's row one that this
 * transaction has written.  So nobody drops or rebuilds it meanwhile, and a
 * rebuild in this transaction knows that others do not see the change yet.  The
 * projection must be the caller's own.  Returns whether it keeps the states of
 * aggregates.
 */
static bool
begin_change(const text *name)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.projections SET name = name WHERE name OPERATOR(pg_catalog.=) $1"
		" RETURNING " REGISTRY_ROLE("owner", "owner_name") ", state_of IS NOT NULL",
		.nargs = 1,.argtypes = {TEXTOID}
	};

	bool		keeps_states;
	bool		isnull;

	SPI_connect();
	ProjectionLockRow(&query, name);
	keeps_states = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	SPI_finish();
	return keeps_states;
}

/* SQL: drop_handler(projection, event_type) */
Datum
cqrs_es_drop_handler(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.handlers WHERE projection OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	text	   *event_type = RequiredText(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(name), PointerGetDatum(event_type)};

	(void) begin_change(name);
	if (RegistryWrite(&query, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" has no handler for event type \"%s\"",
						text_to_cstring(name), text_to_cstring(event_type))));
	PG_RETURN_VOID();
}

/* SQL: drop_projection(name); its handlers go with it, its read models stay. */
Datum
cqrs_es_drop_projection(PG_FUNCTION_ARGS)
{
	static InternalQuery drop_handlers = {
		.sql = "DELETE FROM cqrs_es.handlers WHERE projection OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.projections WHERE name OPERATOR(pg_catalog.=) $1"
		" RETURNING " REGISTRY_ROLE("owner", "owner_name"),
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Datum		value = PointerGetDatum(name);

	SPI_connect();
	ProjectionLockRow(&drop, name);
	SPI_finish();
	(void) RegistryWrite(&drop_handlers, &value, NULL);
	PG_RETURN_VOID();
}

/*
 * SQL: projection_errors(name).  What would make appends fail now, one text for
 * everything that is missing and for every handler; null when nothing would.
 */
Datum
cqrs_es_projection_errors(PG_FUNCTION_ARGS)
{
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	MemoryContext caller = CurrentMemoryContext;
	ArrayBuildState *errors = missing_names(NULL, name);
	TypedHandler **handlers;
	uint64		n;
	uint64		i;

	SPI_connect();
	n = read_handlers(false, PointerGetDatum(name));
	handlers = palloc(Max(n, 1) * sizeof(TypedHandler *));
	for (i = 0; i < n; i++)
		handlers[i] = make_handler(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	for (i = 0; i < n; i++)
	{
		char	   *problem = handlers[i]->handler.state && handlers[i]->handler.missing_table ?
			NULL : HandlerProblem(&handlers[i]->handler);

		if (problem)
			errors = accumArrayResult(errors, CStringGetTextDatum(problem), false, TEXTOID, caller);
	}
	SPI_finish();
	if (errors == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(makeArrayResult(errors, caller));
}

/*
 * Add what a projection names and is not there: read models, and the owner, as
 * whom a rebuild empties them.  In the current memory context.
 */
static ArrayBuildState *
missing_names(ArrayBuildState *errors, const text *name)
{
	static InternalQuery query = {
		.sql = "SELECT " REGISTRY_READ_MODELS ", p.read_model_names, p.owner_name,"
		" EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) "
		REGISTRY_ROLE("p.owner", "p.owner_name") ")"
		" FROM cqrs_es.projections AS p WHERE p.name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);
	MemoryContext caller = CurrentMemoryContext;
	char	   *table;
	int			next = 0;

	SPI_connect();
	if (RegistryRead(&query, &value) > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Datum		tables = SPI_getbinval(row, desc, 1, &isnull);
		Datum		names = SPI_getbinval(row, desc, 2, &isnull);

		while ((table = RegistryMissingTable(tables, names, isnull, &next)) != NULL)
			errors = accumArrayResult(errors,
									  CStringGetTextDatum(psprintf("read model %s does not exist (SQLSTATE %s)", table,
																   unpack_sql_state(ERRCODE_UNDEFINED_TABLE))),
									  false, TEXTOID, caller);
		if (!DatumGetBool(SPI_getbinval(row, desc, 4, &isnull)))
			errors = accumArrayResult(errors,
									  CStringGetTextDatum(psprintf("role \"%s\", which owns the projection, does not exist (SQLSTATE %s)",
																   SPI_getvalue(row, desc, 3),
																   unpack_sql_state(ERRCODE_UNDEFINED_OBJECT))),
									  false, TEXTOID, caller);
	}
	SPI_finish();
	return errors;
}

/*
 * Lock or change the row of a projection with a query that has its name as
 * parameter and gives its owner in the first column; the row is in SPI_tuptable.
 * The projection must be there (42704) and be the caller's own (42501): asked
 * before, so that nobody else locks it, and of the row that was locked, since
 * somebody else may have made one of that name meanwhile.  Between SPI_connect
 * and SPI_finish.
 */
void
ProjectionLockRow(InternalQuery *query, const text *name)
{
	static InternalQuery unlocked = {
		.sql = "SELECT " REGISTRY_ROLE("owner", "owner_name") " FROM cqrs_es.projections"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	if (RegistryRead(&unlocked, &value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", text_to_cstring(name)),
				 errhint("Create it with SELECT cqrs_es.create_projection(%s).",
						 quote_literal_cstr(text_to_cstring(name)))));
	require_owner(name);
	if (RegistryWriteRows(query, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" was dropped meanwhile", text_to_cstring(name))));
	require_owner(name);
}

/* The caller must have the rights of the owner in the first column of the row that was read. */
static void
require_owner(const text *name)
{
	bool		isnull;
	Datum		owner = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

	if (!has_privs_of_role(GetUserId(), DatumGetObjectId(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection \"%s\"", text_to_cstring(name))));
}

/*-------------------------------------------------------------------------
 * the observer
 *-------------------------------------------------------------------------
 */

/*
 * Run the handlers of all projections that an event concerns and that are not
 * paused.  The locks come first; while we waited for one the registry may have
 * changed.  It is looked at again, then, until it names no table that is not
 * locked: from that look on it cannot change in what matters here.  (Not until
 * it stays as it was: that may never be so.)
 */
static void
project(const Event *event)
{
	text	   *aggregate_type = EventText(event, EVENT_AGGREGATE_TYPE);
	EventTypeHandlers *entry;
	List	   *locked = NIL;
	bool		waited;

	RegistryEnter();
	do
	{
		Oid			lock = InvalidOid;

		waited = false;
		entry = handlers_of(EventText(event, EVENT_EVENT_TYPE));
		while (OidIsValid(lock = next_lock(entry, aggregate_type, lock)))
			if (!list_member_oid(locked, lock))
			{
				LockRelationOid(lock, RowExclusiveLock);
				locked = lappend_oid(locked, lock);
				waited = true;
			}
	} while (waited && entry->entry.generation != RegistryGeneration());
	(void) run_handlers(entry, aggregate_type, NULL, event);
	RegistryLeave();
}

/*
 * Run what one projection does for an old event, paused or not; false when the
 * event does not concern it.  The caller sees to it that nobody changes the
 * projection meanwhile.
 */
bool
ProjectionReplay(const char *name, const Event *event)
{
	bool		concerned;

	RegistryEnter();
	concerned = run_handlers(handlers_of(EventText(event, EVENT_EVENT_TYPE)),
							 EventText(event, EVENT_AGGREGATE_TYPE), name, event);
	RegistryLeave();
	return concerned;
}

/*
 * The next table, by its oid, that projections lock which events of this type
 * concern; InvalidOid after the last.
 */
static Oid
next_lock(const EventTypeHandlers *entry, const text *aggregate_type, Oid after)
{
	Oid			next = InvalidOid;
	int			i;
	int			lock;

	for (i = 0; i < entry->n; i++)
	{
		const TypedHandler *handler = entry->handlers[i];

		if (!concerns(handler, aggregate_type))
			continue;
		for (lock = 0; lock < handler->nlocks; lock++)
			if (handler->locks[lock] > after && (!OidIsValid(next) || handler->locks[lock] < next))
				next = handler->locks[lock];
	}
	return next;
}

/*
 * Run the handlers of `only`, or of all projections that are not paused; false
 * when the event does not concern any.  The entry outlives what handlers do to
 * registries.
 */
static bool
run_handlers(EventTypeHandlers *entry, const text *aggregate_type, const char *only,
			 const Event *event)
{
	Event		upcast = *event;
	bool		concerned = false;
	int			guc_level = 0;
	int			i;

	for (i = 0; i < entry->n; i++)
	{
		TypedHandler *handler = entry->handlers[i];

		if (!concerns(handler, aggregate_type) ||
			(only ? strcmp(handler->handler.projection, only) != 0 : handler->paused))
			continue;
		if (!concerned)
		{
			FunctionCalls calls;

			SettingsFix(&guc_level);	/* once for all of them */
			FunctionCallsInit(&calls);
			(void) UpcastEvent(&upcast, &calls);
			FunctionCallsEnd(&calls);
		}
		concerned = true;
		HandlerRun(&handler->handler, &upcast, only != NULL);
	}
	SettingsRestore(guc_level);
	return concerned;
}

/*-------------------------------------------------------------------------
 * registry
 *-------------------------------------------------------------------------
 */

static EventTypeHandlers *
handlers_of(const text *event_type)
{
	return RegistryLookup(&handler_cache, event_type);
}

static void
load_handlers(void *entry, const text *event_type, MemoryContext memory)
{
	EventTypeHandlers *handlers = entry;
	uint64		n = read_handlers(true, PointerGetDatum(event_type));
	MemoryContext spi = MemoryContextSwitchTo(memory);
	uint64		i;

	handlers->handlers = palloc(Max(n, 1) * sizeof(TypedHandler *));
	for (i = 0; i < n; i++)
		handlers->handlers[i] = make_handler(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	handlers->n = (int) n;
	MemoryContextSwitchTo(spi);
}

/*
 * The handlers for an event type or those of a projection, in the order in which
 * they run, as rows for make_handler.  Between SPI_connect and SPI_finish.
 */
static uint64
read_handlers(bool by_event_type, Datum value)
{
#define SELECT_HANDLERS \
	"SELECT p.name, h.statement, h.function," \
	" CASE WHEN h.projection IS NULL THEN " REGISTRY_ROLE("p.owner", "p.owner_name") \
	" ELSE " REGISTRY_ROLE("h.definer", "h.definer_name") " END," \
	" coalesce(h.search_path, 'pg_catalog, pg_temp')," \
	" p.state_of IS NOT NULL, p.paused, p.aggregate_types, " REGISTRY_READ_MODELS "," \
	" p.read_model_names, coalesce(h.definer_name, p.owner_name)" \
	" FROM cqrs_es.projections AS p LEFT JOIN cqrs_es.handlers AS h" \
	" ON h.projection OPERATOR(pg_catalog.=) p.name"
#define ORDER_HANDLERS \
	" AND (h.projection IS NOT NULL OR p.state_of IS NOT NULL)" \
	" ORDER BY p.name, h.event_type OPERATOR(pg_catalog.<>) '" ALL_EVENT_TYPES "', h.event_type"
	static InternalQuery of_event_type = {
		.sql = SELECT_HANDLERS " AND (h.event_type OPERATOR(pg_catalog.=) $1"
		" OR h.event_type OPERATOR(pg_catalog.=) '" ALL_EVENT_TYPES "')"
		" WHERE true" ORDER_HANDLERS,
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery of_projection = {
		.sql = SELECT_HANDLERS " WHERE p.name OPERATOR(pg_catalog.=) $1" ORDER_HANDLERS,
		.nargs = 1,.argtypes = {TEXTOID}
	};

	return RegistryRead(by_event_type ? &of_event_type : &of_projection, &value);
}

/* A row of read_handlers as a handler, in the current memory context. */
static TypedHandler *
make_handler(HeapTuple row, TupleDesc desc)
{
	TypedHandler *typed = palloc0(sizeof(TypedHandler));
	Handler    *handler = &typed->handler;
	bool		isnull;
	Datum		value;
	Datum		tables;
	int			next = 0;

	handler->projection = SPI_getvalue(row, desc, 1);
	handler->definer.role = DatumGetObjectId(SPI_getbinval(row, desc, 4, &isnull));
	handler->definer.search_path = SPI_getvalue(row, desc, 5);
	handler->definer.name = SPI_getvalue(row, desc, 11);
	typed->paused = DatumGetBool(SPI_getbinval(row, desc, 7, &isnull));

	value = SPI_getbinval(row, desc, 8, &isnull);
	typed->all_types = isnull;
	if (!isnull)
		set_types(typed, value);
	tables = SPI_getbinval(row, desc, 9, &isnull);
	typed->locks = ProjectionLocks(tables, &typed->nlocks);
	value = SPI_getbinval(row, desc, 10, &isnull);
	handler->missing_table = RegistryMissingTable(tables, value, isnull, &next);
	if (DatumGetBool(SPI_getbinval(row, desc, 6, &isnull)))
		handler->state = StateProjectionMake(handler->projection, typed->locks[0], typed->types[0],
											 &handler->definer);
	else
		handler->statement = HandlerStatement(SPI_getvalue(row, desc, 2), SPI_getvalue(row, desc, 3),
											  &handler->definer);
	return typed;
}

static void
set_types(TypedHandler *typed, Datum types)
{
	Datum	   *elements;
	int			i;

	deconstruct_array(DatumGetArrayTypePCopy(types), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &typed->ntypes);
	typed->types = palloc(Max(typed->ntypes, 1) * sizeof(text *));
	for (i = 0; i < typed->ntypes; i++)
		typed->types[i] = DatumGetTextPP(elements[i]);
}

/* The elements of an array of regclass without nulls, palloc'd. */
static Oid *
tables_of(ArrayType *array, int *n)
{
	Datum	   *elements;
	Oid		   *tables;
	int			i;

	deconstruct_array(array, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &elements, NULL, n);
	tables = palloc(Max(*n, 1) * sizeof(Oid));
	for (i = 0; i < *n; i++)
		tables[i] = DatumGetObjectId(elements[i]);
	return tables;
}

/*
 * What a projection with these read models locks, in order; palloc'd.  In place
 * of those that are missing stands the registry.
 */
Oid *
ProjectionLocks(Datum read_models, int *n)
{
	Oid		   *locks = tables_of(DatumGetArrayTypeP(read_models), n);
	int			i;

	if (*n == 0)
		locks[(*n)++] = InvalidOid;
	for (i = 0; i < *n; i++)
		if (!OidIsValid(locks[i]))
			locks[i] = CqrsEsRelid("projections");
	qsort(locks, *n, sizeof(Oid), oid_cmp);
	return locks;
}

static bool
concerns(const TypedHandler *handler, const text *aggregate_type)
{
	int			i;

	if (handler->all_types)
		return true;
	for (i = 0; i < handler->ntypes; i++)
		if (TextEqual(handler->types[i], aggregate_type))
			return true;
	return false;
}
