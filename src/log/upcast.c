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
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/stream_key.h"
#include "base/text.h"
#include "log/event_error.h"
#include "log/events.h"
#include "log/upcast.h"

/* One step of a chain. */
typedef struct Upcaster
{
	text	   *event_type;
	text	   *from_version;
	text	   *to_version;
	RegistryFunction function;
} Upcaster;

/*
 * All upcasters, which are few, read in one go: the fingerprint is of just
 * those that UpcastEvent will use.
 */
typedef struct Upcasters
{
	RegistryEntry entry;		/* the only one */
	int			n;
	Upcaster   *upcasters;
	char	   *fingerprint;
	char	   *row_versions;
} Upcasters;

static void load(void *entry, const text *key, MemoryContext memory);

static RegistryCache upcaster_cache = {
	.name = "cqrs_es upcasters",.entry_size = sizeof(Upcasters),.load = load
};

PG_FUNCTION_INFO_V1(cqrs_es_define_upcaster);
PG_FUNCTION_INFO_V1(cqrs_es_define_upcaster_function);
PG_FUNCTION_INFO_V1(cqrs_es_drop_upcaster);

/* the arguments of an upcaster */
static const Oid function_argtypes[] = {JSONBOID};

static void lock_upcasters(void);
static void unlock_upcasters(void);
static void define_upcaster(FunctionCallInfo fcinfo, NullableDatum function);
static Upcasters *all_upcasters(void);
static Upcasters *upcasters_if_any(void);
static Upcaster *find_upcaster(const Upcasters *all, const text *event_type, const text *version);
static Datum lift(Event *event, Upcaster *upcaster, FunctionCalls *calls);
static void describe_upcast(void *arg);
pg_noreturn static void report_cycle(const text *event_type, const text *version);
static const text *refuse_cycle(const text *event_type, const text *from_version,
								text *to_version);
static void tell_writers(const text *event_type, const text *from_version,
						 const text *newest);

void
UpcastInit(void)
{
	RegistryRegisterOfAllNodes("upcasters");
	RegistryFunctionRegister("upcasters",
							 "SELECT function, pg_catalog.format('the upcaster of event type \"%s\" from version \"%s\"',"
							 " event_type, from_version) AS used_as FROM cqrs_es.upcasters");
}

/* SQL: define_upcaster(event_type, from_version, to_version, function regprocedure) */
Datum
cqrs_es_define_upcaster_function(PG_FUNCTION_ARGS)
{
	ReadOnlyPrevent(fcinfo);
	lock_upcasters();
	define_upcaster(fcinfo, fcinfo->args[3]);
	PG_RETURN_VOID();
}

/* SQL: define_upcaster(event_type, from_version, to_version, function text) */
Datum
cqrs_es_define_upcaster(PG_FUNCTION_ARGS)
{
	ReadOnlyPrevent(fcinfo);
	ExtensionRefuseOlder();		/* there the function is no text */
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("function must not be null")));
	lock_upcasters();
	define_upcaster(fcinfo, RegistryFunctionByName(text_to_cstring(PG_GETARG_TEXT_PP(3)),
												   function_argtypes, lengthof(function_argtypes)));
	PG_RETURN_VOID();
}

/* Two who define one each must not make a cycle together. */
static void
lock_upcasters(void)
{
	LockRelationOid(ExtensionRelid("upcasters"), ShareRowExclusiveLock);
}

/* For who has written nothing. */
static void
unlock_upcasters(void)
{
	UnlockRelationOid(ExtensionRelid("upcasters"), ShareRowExclusiveLock);
}

/* Check an upcaster and store it, in place of an earlier one; the same one is left as it is. */
static void
define_upcaster(FunctionCallInfo fcinfo, NullableDatum function)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.upcasters"
		" (event_type, from_version, to_version, function, search_path)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (event_type, from_version) DO UPDATE SET"
		" to_version = excluded.to_version, function = excluded.function,"
		" search_path = excluded.search_path",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.upcasters WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND from_version OPERATOR(pg_catalog.=) $2 AND to_version OPERATOR(pg_catalog.=) $3"
		" AND function OPERATOR(pg_catalog.=) $4 AND search_path OPERATOR(pg_catalog.=) $5",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	text	   *event_type = TextArgument(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	text	   *from_version = TextArgument(fcinfo->args[1], "from_version", EVENT_VERSION_MAX_BYTES);
	text	   *to_version = TextArgument(fcinfo->args[2], "to_version", EVENT_VERSION_MAX_BYTES);
	const text *newest;
	Datum		values[5];

	values[0] = PointerGetDatum(event_type);
	values[1] = PointerGetDatum(from_version);
	values[2] = PointerGetDatum(to_version);
	values[4] = CStringGetTextDatum(DefinerSearchPath());
	values[3] = RegistryFunctionSignature(function, JSONBOID, function_argtypes, lengthof(function_argtypes),
										  "An upcaster is a function (payload jsonb) that returns jsonb.");
	if (RegistryHas(&same, values, NULL))
	{
		unlock_upcasters();
		return;
	}
	newest = refuse_cycle(event_type, from_version, to_version);
	tell_writers(event_type, from_version, newest);
	(void) RegistryWrite(&query, values, NULL);
}

/* SQL: drop_upcaster(event_type, from_version, if_exists) */
Datum
cqrs_es_drop_upcaster(PG_FUNCTION_ARGS)
{
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.upcasters WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND from_version OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.upcasters WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND from_version OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *event_type = TextArgument(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	text	   *from_version = TextArgument(fcinfo->args[1], "from_version", EVENT_VERSION_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(event_type), PointerGetDatum(from_version)};

	ReadOnlyPrevent(fcinfo);
	ExtensionRefuseOlder();
	if (!RegistryDrop(&row, &drop, values))
		RegistryReportMissing(RegistryIfExists(fcinfo->args[2]), ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("upcaster of event type \"%s\" from version \"%s\" does not exist",
									   text_to_cstring(event_type), text_to_cstring(from_version)));
	PG_RETURN_VOID();
}

/*
 * Lift the event to its newest version; the new payload is palloc'd in the
 * current memory context.  Raises what an upcaster raises, with the event in its
 * fields (event_error.c).
 */
void
UpcastEvent(Event *event, FunctionCalls *calls)
{
	Upcasters  *all = upcasters_if_any();
	Upcaster   *upcaster;
	text	   *event_type;
	int			steps = 0;

	if (all == NULL)
		return;
	event_type = EventText(event, EVENT_EVENT_TYPE);
	while ((upcaster = find_upcaster(all, event_type, EventText(event, EVENT_EVENT_VERSION))) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (steps++ >= all->n)
			report_cycle(event_type, upcaster->from_version);
		event->values[EVENT_PAYLOAD] = lift(event, upcaster, calls);
		event->values[EVENT_EVENT_VERSION] = PointerGetDatum(upcaster->to_version);
		event->row = NULL;
	}
}

/* Is there an upcaster that would lift the event? */
bool
UpcastLifts(const Event *event)
{
	Upcasters  *all = upcasters_if_any();

	return all != NULL && find_upcaster(all, EventText(event, EVENT_EVENT_TYPE),
										EventText(event, EVENT_EVENT_VERSION)) != NULL;
}

/*
 * Could the current role lift events of this type?  42501, 42883, 42P17 when not, as
 * the first upcaster would raise it.
 */
void
UpcastRequireRights(const text *event_type)
{
	const Upcasters *all = all_upcasters();
	int			i;

	for (i = 0; i < all->n; i++)
		if (TextEqual(all->upcasters[i].event_type, event_type))
			RegistryFunctionRequire(&all->upcasters[i].function);
}

/* All upcasters, NULL when there are none, as in most databases: once per generation that is found out. */
static Upcasters *
upcasters_if_any(void)
{
	static uint64 none_in_generation = 0;
	uint64		generation = RegistryGeneration();
	Upcasters  *all;

	if (none_in_generation == generation)
		return NULL;
	all = all_upcasters();
	if (all->n > 0)
		return all;
	none_in_generation = generation;
	return NULL;
}

/*
 * The version to which upcasters lift this one: itself when none does.  Otherwise it
 * lasts as an entry of the cache does (registry.c).
 */
text *
UpcastNewest(const text *event_type, text *version)
{
	const Upcasters *all = all_upcasters();
	Upcaster   *upcaster;
	int			steps = 0;

	while (steps++ < all->n && (upcaster = find_upcaster(all, event_type, version)) != NULL)
		version = upcaster->to_version;
	return version;
}

/*
 * The newest version of an event type whose upcasters know of no such version; NULL
 * when they do, or when it has none.
 */
text *
UpcastUnknown(const text *event_type, const text *version)
{
	const Upcasters *all = all_upcasters();
	text	   *newest = NULL;
	int			i;

	for (i = 0; i < all->n; i++)
	{
		const Upcaster *upcaster = &all->upcasters[i];

		if (!TextEqual(upcaster->event_type, event_type))
			continue;
		if (TextEqual(upcaster->from_version, version) || TextEqual(upcaster->to_version, version))
			return NULL;
		newest = upcaster->to_version;
	}
	return newest ? UpcastNewest(event_type, newest) : NULL;
}

/*
 * The payload as one upcaster lifts it.  An error says of which event it came
 * (event_error.c), unless it is one of ours, with fields of its own.
 */
static Datum
lift(Event *event, Upcaster *upcaster, FunctionCalls *calls)
{
	NullableDatum args[1] = {{.value = event->values[EVENT_PAYLOAD],.isnull = false}};
	ErrorContextCallback callback = {error_context_stack, describe_upcast, event};
	MemoryContext caller = CurrentMemoryContext;
	Datum		payload = 0;

	error_context_stack = &callback;
	PG_TRY();
	{
		payload = RegistryFunctionCall(&upcaster->function, calls, args, 1);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_WRONG_EXPECTED_VERSION))
			PG_RE_THROW();
		FlushErrorState();
		EventErrorName(error, event);
		ReThrowError(error);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return payload;
}

/*
 * All upcasters with the source of their functions as one text, for the
 * fingerprint of folds; "" when there are none.  *row_versions becomes a text of
 * which rows they were read from.  Both last to the end of the transaction.
 */
const char *
UpcastFingerprint(const char **row_versions)
{
	Upcasters  *all = all_upcasters();

	*row_versions = all->row_versions;
	return all->fingerprint;
}

static Upcasters *
all_upcasters(void)
{
	return RegistryLookup(&upcaster_cache, NULL);
}

/* Fill the cache. */
static void
load(void *entry, const text *key, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT u.event_type, u.from_version, u.to_version,"
		" u.function, p.oid AS function_oid, u.search_path,"
		" ROW(u.event_type, u.from_version, u.to_version, u.function, u.search_path, "
		FUNCTION_SOURCE ")::pg_catalog.text AS source, " ROW_VERSIONS("u") " AS row_versions"
		" FROM cqrs_es.upcasters AS u LEFT JOIN pg_catalog.pg_proc AS p"
		" ON p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(u.function)::pg_catalog.oid"
		" ORDER BY u.event_type, u.from_version",
		.nargs = 0
	};
	Upcasters  *all = entry;
	StringInfoData fingerprint;
	StringInfoData row_versions;
	uint64		n = RegistryRead(&query, NULL);
	uint64		i;

	initStringInfo(&fingerprint);
	initStringInfo(&row_versions);
	all->upcasters = MemoryContextAllocZero(memory, Max(n, 1) * sizeof(Upcaster));
	for (i = 0; i < n; i++)
	{
		Upcaster   *upcaster = &all->upcasters[i];
		QueryRow	row = InternalQueryRow(i);
		MemoryContext spi = MemoryContextSwitchTo(memory);

		upcaster->event_type = cstring_to_text(InternalQueryText(&row, "event_type"));
		upcaster->from_version = cstring_to_text(InternalQueryText(&row, "from_version"));
		upcaster->to_version = cstring_to_text(InternalQueryText(&row, "to_version"));
		RegistryFunctionInit(&upcaster->function, &row, "upcaster");
		MemoryContextSwitchTo(spi);
		appendStringInfoString(&fingerprint, InternalQueryText(&row, "source"));
		appendStringInfoString(&row_versions, InternalQueryText(&row, "row_versions"));
	}
	all->fingerprint = MemoryContextStrdup(memory, fingerprint.data);
	all->row_versions = MemoryContextStrdup(memory, row_versions.data);
	all->n = (int) n;
}

static Upcaster *
find_upcaster(const Upcasters *all, const text *event_type, const text *version)
{
	int			i;

	for (i = 0; i < all->n; i++)
		if (TextEqual(all->upcasters[i].event_type, event_type) &&
			TextEqual(all->upcasters[i].from_version, version))
			return &all->upcasters[i];
	return NULL;
}

/*
 * Follow the chain that would begin with the new upcaster; 22023 when it comes
 * back.  Returns the version that it leads to; a copy.
 */
static const text *
refuse_cycle(const text *event_type, const text *from_version, text *to_version)
{
	Upcasters  *all = all_upcasters();
	const text *version = to_version;
	int			steps;

	for (steps = 0; steps <= all->n; steps++)
	{
		Upcaster   *next;

		if (TextEqual(version, from_version))
			report_cycle(event_type, from_version);
		next = find_upcaster(all, event_type, version);
		if (next == NULL)
			break;
		version = next->to_version;
	}
	return cstring_to_text_with_len(VARDATA_ANY(version), VARSIZE_ANY_EXHDR(version));
}

/*
 * NOTICE for those who write events of the type: one that names no version has
 * version 1 and would be lifted, although it may have the new shape.
 */
static void
tell_writers(const text *event_type, const text *from_version, const text *newest)
{
	text	   *unnamed = cstring_to_text("1");
	char	   *type = text_to_cstring(event_type);
	char	   *version = text_to_cstring(newest);

	if (!TextEqual(from_version, unnamed) &&
		find_upcaster(all_upcasters(), event_type, unnamed) == NULL)
		return;
	ereport(NOTICE,
			(errmsg("new events of type \"%s\" must name their version", type),
			 errdetail("An append that names none writes version \"1\", which is lifted whenever it is read."),
			 errhint("Append the new shape with event_version => '%s'; in append_events and in what deciders return it is the member \"version\": \"%s\".",
					 version, version)));
}

static void
report_cycle(const text *event_type, const text *version)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("upcasters of event type \"%s\" would lead from version \"%s\" back to it",
					text_to_cstring(event_type), text_to_cstring(version))));
}

static void
describe_upcast(void *arg)
{
	Event	   *event = arg;
	StreamKey	key;

	EventKey(event, &key);
	errcontext("upcasting event %lld of stream \"%s\", at position %lld",
			   (long long) EventSequence(event), StreamKeyName(&key),
			   (long long) EventGlobalPosition(event));
}
