/*-------------------------------------------------------------------------
 * upcast.c
 *	  Old payload version -> current one, on every way out of the log.
 *
 * An upcaster is a function (payload jsonb) returning jsonb that lifts the
 * payload of one event type from one version to another.  Upcasters chain, as
 * far as they go; a version that none knows is left alone.  A chain cannot come
 * back to where it began: that is checked when one is defined.
 *
 * The log itself never changes.  Whoever hands events out calls UpcastEvent:
 * read_stream, read_all, folds, and projections, so that a read model is the
 * same whether its event was new or replayed.  Version checks and idempotency
 * look at what was stored, and so does SELECT ... FROM cqrs_es.events.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "compat.h"
#include "cqrs_es.h"
#include "errors.h"
#include "events.h"
#include "registry.h"
#include "registry_function.h"
#include "upcast.h"

/* One step of a chain. */
typedef struct Upcaster
{
	text	   *from_version;
	text	   *to_version;
	RegistryFunction function;
}			Upcaster;

/* The upcasters of an event type, or, for the empty key, whether there are any. */
typedef struct EventTypeUpcasters
{
	char		event_type[REGISTRY_KEY_BYTES];
	bool		loaded;
	int			n;
	Upcaster   *upcasters;
}			EventTypeUpcasters;

static RegistryCache upcaster_cache = {
	.name = "cqrs_es upcasters",.entry_size = sizeof(EventTypeUpcasters)
};

PG_FUNCTION_INFO_V1(cqrs_es_define_upcaster);
PG_FUNCTION_INFO_V1(cqrs_es_drop_upcaster);

static EventTypeUpcasters *upcasters_of(const text *event_type);
static Upcaster *find_upcaster(const EventTypeUpcasters *entry, const text *version);
static void refuse_cycle(const text *event_type, const text *from_version, text *to_version);

/* SQL: define_upcaster(event_type, from_version, to_version, function); replaces an earlier one. */
Datum
cqrs_es_define_upcaster(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.upcasters"
		" (event_type, from_version, to_version, function, search_path)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (event_type, from_version) DO UPDATE SET"
		" to_version = excluded.to_version, function = excluded.function,"
		" search_path = excluded.search_path",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	static const Oid argtypes[] = {JSONBOID};
	text	   *event_type = RequiredText(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	text	   *from_version = RequiredText(fcinfo->args[1], "from_version", EVENT_VERSION_MAX_BYTES);
	text	   *to_version = RequiredText(fcinfo->args[2], "to_version", EVENT_VERSION_MAX_BYTES);
	Datum		values[5];

	values[3] = RegistryFunctionSignature(fcinfo->args[3], argtypes, lengthof(argtypes),
										  "An upcaster is a function (payload jsonb) that returns jsonb.");
	refuse_cycle(event_type, from_version, to_version);
	values[0] = PointerGetDatum(event_type);
	values[1] = PointerGetDatum(from_version);
	values[2] = PointerGetDatum(to_version);
	values[4] = CStringGetTextDatum(DefinerSearchPath());
	(void) RegistryWrite(&query, values, NULL);
	PG_RETURN_VOID();
}

/* SQL: drop_upcaster(event_type, from_version) */
Datum
cqrs_es_drop_upcaster(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.upcasters WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND from_version OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *event_type = RequiredText(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	text	   *from_version = RequiredText(fcinfo->args[1], "from_version", EVENT_VERSION_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(event_type), PointerGetDatum(from_version)};

	if (RegistryWrite(&query, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("upcaster of event type \"%s\" from version \"%s\" does not exist",
						text_to_cstring(event_type), text_to_cstring(from_version))));
	PG_RETURN_VOID();
}

/*
 * Lift the event to its newest version; the new payload is palloc'd in the
 * current memory context.  Raises what an upcaster raises.
 */
void
UpcastEvent(Event *event, FunctionCalls *calls)
{
	static uint64 none_in_generation = 0;
	EventTypeUpcasters *entry;
	Upcaster   *upcaster;

	/* most databases have no upcasters: find that out once per generation */
	if (none_in_generation == RegistryGeneration())
		return;
	if (upcasters_of(cstring_to_text(""))->n == 0)
	{
		none_in_generation = RegistryGeneration();
		return;
	}

	entry = upcasters_of(EventText(event, EVENT_EVENT_TYPE));
	while ((upcaster = find_upcaster(entry, EventText(event, EVENT_EVENT_VERSION))) != NULL)
	{
		NullableDatum args[1] = {{.value = event->values[EVENT_PAYLOAD],.isnull = false}};

		event->values[EVENT_PAYLOAD] = RegistryFunctionCall(&upcaster->function, calls, args, 1);
		event->values[EVENT_EVENT_VERSION] = PointerGetDatum(upcaster->to_version);
		event->row = NULL;
	}
}

/*
 * All upcasters with the source of their functions as one text, for the
 * fingerprint of folds.  Between SPI_connect and SPI_finish.
 */
char *
UpcastFingerprint(void)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.string_agg(ROW(u.event_type, u.from_version,"
		" u.to_version, u.function, " FUNCTION_SOURCE ")::pg_catalog.text, ''"
		" ORDER BY u.event_type, u.from_version)"
		" FROM cqrs_es.upcasters AS u LEFT JOIN pg_catalog.pg_proc AS p"
		" ON p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(u.function)::pg_catalog.oid",
		.nargs = 0
	};

	(void) RegistryRead(&query, NULL);
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* The registry of an event type, cached; of all when it is empty. */
static EventTypeUpcasters *
upcasters_of(const text *event_type)
{
	static InternalQuery query = {
		.sql = "SELECT u.from_version, u.to_version, u.function,"
		" pg_catalog.to_regprocedure(u.function)::pg_catalog.oid, u.search_path"
		" FROM cqrs_es.upcasters AS u"
		" WHERE u.event_type OPERATOR(pg_catalog.=) $1 OR $1 OPERATOR(pg_catalog.=) ''",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	bool		found;
	EventTypeUpcasters *entry = RegistryCacheLookup(&upcaster_cache, event_type, &found);
	MemoryContext memory = upcaster_cache.memory;
	Datum		value = PointerGetDatum(event_type);
	uint64		n;
	uint64		i;

	if (found && entry->loaded)
		return entry;
	entry->loaded = false;
	SPI_connect();
	n = RegistryRead(&query, &value);
	entry->upcasters = MemoryContextAllocZero(memory, Max(n, 1) * sizeof(Upcaster));
	for (i = 0; i < n; i++)
	{
		Upcaster   *upcaster = &entry->upcasters[i];
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext spi = MemoryContextSwitchTo(memory);

		upcaster->from_version = cstring_to_text(SPI_getvalue(row, desc, 1));
		upcaster->to_version = cstring_to_text(SPI_getvalue(row, desc, 2));
		RegistryFunctionInit(&upcaster->function, row, desc, 3, "upcaster");
		MemoryContextSwitchTo(spi);
	}
	entry->n = (int) n;
	SPI_finish();
	entry->loaded = true;
	return entry;
}

static Upcaster *
find_upcaster(const EventTypeUpcasters *entry, const text *version)
{
	int			i;

	for (i = 0; i < entry->n; i++)
		if (TextEqual(entry->upcasters[i].from_version, version))
			return &entry->upcasters[i];
	return NULL;
}

/* Follow the chain that would begin with the new upcaster; 22023 when it comes back. */
static void
refuse_cycle(const text *event_type, const text *from_version, text *to_version)
{
	EventTypeUpcasters *entry = upcasters_of(event_type);
	const text *version = to_version;
	Upcaster   *next;

	for (;;)
	{
		if (TextEqual(version, from_version))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("upcasters of event type \"%s\" would lead from version \"%s\" back to it",
							text_to_cstring(event_type), text_to_cstring(from_version))));
		next = find_upcaster(entry, version);
		if (next == NULL)
			return;
		version = next->to_version;
	}
}
