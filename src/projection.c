/*-------------------------------------------------------------------------
 * projection.c
 *	  Read models kept current in the appending transaction: the registry of
 *	  projections and handlers, and the observer that runs them.
 *
 * A projection is a name, a choice of aggregate types, and a handler per event
 * type (handler.c).  For a new event the handlers of its type run one after
 * the other, in the order of the projections' names, as triggers do.  The
 * observer is called when all events of an append are in the log.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "cqrs_es.h"
#include "dispatch.h"
#include "errors.h"
#include "events.h"
#include "handler.h"
#include "internal_query.h"
#include "projection.h"
#include "registry.h"
#include "upcast.h"

#define PROJECTION_NAME_MAX_BYTES 255

/* A handler and for which aggregate types it is; no types: for all. */
typedef struct TypedHandler
{
	Handler		handler;
	bool		all_types;
	int			ntypes;
	text	  **types;
}			TypedHandler;

/* What happens for an event type. */
typedef struct EventTypeHandlers
{
	char		event_type[REGISTRY_KEY_BYTES];
	bool		loaded;
	int			n;
	TypedHandler **handlers;	/* each its own chunk: plans hang on it */
}			EventTypeHandlers;

static RegistryCache handler_cache = {
	.name = "cqrs_es handlers",.entry_size = sizeof(EventTypeHandlers)
};

PG_FUNCTION_INFO_V1(cqrs_es_create_projection);
PG_FUNCTION_INFO_V1(cqrs_es_define_handler);
PG_FUNCTION_INFO_V1(cqrs_es_drop_projection);

static void check_types(ArrayType *types);
static void check_read_models(ArrayType *read_models);
static void require_projection_owner(const text *name);
static void project(const Event *event);
static void load_handlers(EventTypeHandlers *entry, const text *event_type);
static TypedHandler *make_handler(HeapTuple row, TupleDesc desc);
static bool concerns(const TypedHandler *handler, const text *aggregate_type);

void
ProjectionInit(void)
{
	DispatchRegister(project);
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: create_projection(name, aggregate_types, read_models) */
Datum
cqrs_es_create_projection(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.projections (name, aggregate_types, read_models, owner)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		.nargs = 4,.argtypes = {TEXTOID, TEXTARRAYOID, REGCLASSARRAYOID, REGROLEOID}
	};
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Datum		values[4] = {PointerGetDatum(name), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2),
	ObjectIdGetDatum(GetUserId())};
	char		nulls[4] = {' ', PG_ARGISNULL(1) ? 'n' : ' ', PG_ARGISNULL(2) ? 'n' : ' ', ' '};

	if (!PG_ARGISNULL(1))
		check_types(PG_GETARG_ARRAYTYPE_P(1));
	if (!PG_ARGISNULL(2))
		check_read_models(PG_GETARG_ARRAYTYPE_P(2));
	if (RegistryWrite(&query, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("projection \"%s\" already exists", text_to_cstring(name))));
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
	deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (i = 0; i < n; i++)
	{
		NullableDatum element = {.value = elements[i],.isnull = nulls[i]};

		(void) RequiredText(element, "aggregate type", AGGREGATE_TYPE_MAX_BYTES);
	}
}

/* Tables of the caller's own. */
static void
check_read_models(ArrayType *read_models)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	deconstruct_array(read_models, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("read_models must not contain nulls")));
		if (!compat_class_ownercheck(DatumGetObjectId(elements[i]), GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
						   get_rel_name(DatumGetObjectId(elements[i])));
	}
}

/* SQL: define_handler(projection, event_type, statement); replaces an earlier one. */
Datum
cqrs_es_define_handler(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.handlers AS h (projection, event_type, statement, definer, search_path)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (projection, event_type) DO UPDATE SET"
		" statement = excluded.statement, definer = excluded.definer,"
		" search_path = excluded.search_path",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	text	   *event_type = RequiredText(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Handler		handler = {0};
	Datum		values[5];

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("statement must not be null")));
	require_projection_owner(name);
	handler.projection = text_to_cstring(name);
	handler.statement = text_to_cstring(PG_GETARG_TEXT_PP(2));
	handler.definer = GetUserId();
	handler.search_path = DefinerSearchPath();
	HandlerValidate(&handler);

	values[0] = PointerGetDatum(name);
	values[1] = PointerGetDatum(event_type);
	values[2] = PG_GETARG_DATUM(2);
	values[3] = ObjectIdGetDatum(handler.definer);
	values[4] = CStringGetTextDatum(handler.search_path);
	(void) RegistryWrite(&query, values, NULL);
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
		.sql = "DELETE FROM cqrs_es.projections WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = RequiredText(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Datum		value = PointerGetDatum(name);

	require_projection_owner(name);
	(void) RegistryWrite(&drop_handlers, &value, NULL);
	(void) RegistryWrite(&drop, &value, NULL);
	PG_RETURN_VOID();
}

/* The projection must exist (42704) and be the caller's own (42501). */
static void
require_projection_owner(const text *name)
{
	static InternalQuery query = {
		.sql = "SELECT owner::pg_catalog.oid FROM cqrs_es.projections"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);
	Oid			owner;
	bool		isnull;

	SPI_connect();
	if (RegistryRead(&query, &value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", text_to_cstring(name)),
				 errhint("Create it with SELECT cqrs_es.create_projection(%s).",
						 quote_literal_cstr(text_to_cstring(name)))));
	owner = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection \"%s\"", text_to_cstring(name))));
}

/*-------------------------------------------------------------------------
 * the observer
 *-------------------------------------------------------------------------
 */

static void
project(const Event *event)
{
	text	   *aggregate_type = EventText(event, EVENT_AGGREGATE_TYPE);
	text	   *event_type = EventText(event, EVENT_EVENT_TYPE);
	Event		upcast = *event;
	FunctionCalls calls;
	bool		found;
	EventTypeHandlers *entry = RegistryCacheLookup(&handler_cache, event_type, &found);
	int			i;

	if (!found)
		entry->loaded = false;
	if (!entry->loaded)
		load_handlers(entry, event_type);

	if (entry->n == 0)
		return;

	/* as a rebuild would see it; the entry outlives what handlers do to registries */
	FunctionCallsInit(&calls);
	(void) UpcastEvent(&upcast, &calls);
	FunctionCallsEnd(&calls);
	for (i = 0; i < entry->n; i++)
		if (concerns(entry->handlers[i], aggregate_type))
			HandlerRun(&entry->handlers[i]->handler, &upcast);
}

static void
load_handlers(EventTypeHandlers *entry, const text *event_type)
{
	static InternalQuery query = {
		.sql = "SELECT p.name, h.statement, h.definer::pg_catalog.oid, h.search_path, p.aggregate_types"
		" FROM cqrs_es.handlers AS h JOIN cqrs_es.projections AS p"
		" ON p.name OPERATOR(pg_catalog.=) h.projection"
		" WHERE h.event_type OPERATOR(pg_catalog.=) $1 ORDER BY p.name",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(event_type);
	uint64		n;
	uint64		i;
	MemoryContext spi;

	SPI_connect();
	n = RegistryRead(&query, &value);
	spi = MemoryContextSwitchTo(handler_cache.memory);
	entry->handlers = palloc(Max(n, 1) * sizeof(TypedHandler *));
	for (i = 0; i < n; i++)
		entry->handlers[i] = make_handler(SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	entry->n = (int) n;
	MemoryContextSwitchTo(spi);
	SPI_finish();
	entry->loaded = true;
}

/* A row of the registry as a handler, in the current memory context. */
static TypedHandler *
make_handler(HeapTuple row, TupleDesc desc)
{
	TypedHandler *typed = palloc0(sizeof(TypedHandler));
	bool		isnull;
	Datum		types;

	typed->handler.projection = SPI_getvalue(row, desc, 1);
	typed->handler.statement = SPI_getvalue(row, desc, 2);
	typed->handler.definer = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
	typed->handler.search_path = SPI_getvalue(row, desc, 4);
	types = SPI_getbinval(row, desc, 5, &isnull);
	typed->all_types = isnull;
	if (!isnull)
	{
		Datum	   *elements;
		int			i;

		deconstruct_array(DatumGetArrayTypePCopy(types), TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, NULL, &typed->ntypes);
		typed->types = palloc(Max(typed->ntypes, 1) * sizeof(text *));
		for (i = 0; i < typed->ntypes; i++)
			typed->types[i] = DatumGetTextPP(elements[i]);
	}
	return typed;
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
