/*-------------------------------------------------------------------------
 * registry.c
 *	  Declarations: aggregates, and how every registry is cached.
 *
 * A registry is a small table: aggregates here, reducers, projections and
 * handlers in files of their own.  Every backend caches what it read.  A
 * statement trigger on each registry table sends a relcache invalidation for
 * it, which reaches other sessions at commit and this one at its next command;
 * at rollback the server replays it here, so that no cache remembers what
 * never happened.  The callback does no more than count: the next lookup sees
 * that its cache is of an older generation and starts anew.
 *
 * The caches hold what they derive from functions and roles as well, so
 * changes of those count, too.
 *
 * A cache that is thrown away may still be in use further up the stack (a
 * reducer that redefines reducers).  Its memory therefore goes to the current
 * transaction, which frees it at its end; nobody keeps a pointer for longer.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "cqrs_es.h"
#include "errors.h"
#include "events.h"
#include "internal_query.h"
#include "registry.h"

static const char *const registry_tables[] = {"aggregates", "reducers", "projections", "handlers"};

static uint64 registry_generation = 1;
static Oid	registry_relids[lengthof(registry_tables)];
static bool registry_relids_known = false;

PG_FUNCTION_INFO_V1(cqrs_es_registry_changed);
PG_FUNCTION_INFO_V1(cqrs_es_create_aggregate);

static void learn_registry_relids(void);
static void invalidate_registry(Datum arg, Oid relid);
static void invalidate_derived(Datum arg, int cacheid, uint32 hashvalue);

void
RegistryInit(void)
{
	CacheRegisterRelcacheCallback(invalidate_registry, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, invalidate_derived, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, invalidate_derived, (Datum) 0);
}

/* SQL: the statement trigger of every registry table */
Datum
cqrs_es_registry_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as a trigger", "registry_changed()")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/* SQL: create_aggregate(aggregate_type, initial_state, snapshot_every) */
Datum
cqrs_es_create_aggregate(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.aggregates (aggregate_type, initial_state, snapshot_every)"
		" VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
		.nargs = 3,.argtypes = {TEXTOID, JSONBOID, INT4OID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	Datum		values[3];

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null",
						PG_ARGISNULL(1) ? "initial_state" : "snapshot_every")));
	if (PG_GETARG_INT32(2) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("snapshot_every must not be negative"),
				 errhint("0 takes no snapshots.")));
	values[0] = PointerGetDatum(type);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(2);
	if (RegistryWrite(&query, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("aggregate type \"%s\" already exists", text_to_cstring(type))));
	PG_RETURN_VOID();
}

/*
 * The cache's entry for a key of at most 255 bytes.  *found is false for a new
 * one: the caller fills it, allocating in cache->memory, or removes it by
 * raising an error before anything else is looked up.  The entry is good until
 * the end of the transaction.
 */
void *
RegistryCacheLookup(RegistryCache *cache, const text *key, bool *found)
{
	char		name[REGISTRY_KEY_BYTES] = {0};

	learn_registry_relids();
	if (cache->memory == NULL || cache->generation != registry_generation)
	{
		HASHCTL		control = {0};

		if (cache->memory)
			MemoryContextSetParent(cache->memory, TopTransactionContext);
		cache->memory = NULL;
		cache->memory = AllocSetContextCreate(CacheMemoryContext, "cqrs_es registry cache",
											  ALLOCSET_SMALL_SIZES);
		MemoryContextSetIdentifier(cache->memory, cache->name);
		control.keysize = REGISTRY_KEY_BYTES;
		control.entrysize = cache->entry_size;
		control.hcxt = cache->memory;
		cache->entries = hash_create(cache->name, 64, &control,
									 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
		cache->generation = registry_generation;
	}
	Assert(VARSIZE_ANY_EXHDR(key) < REGISTRY_KEY_BYTES);
	memcpy(name, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	return hash_search(cache->entries, name, HASH_ENTER, found);
}

/*
 * Read a registry with the newest snapshot whatever the isolation level, for
 * a cache outlives the transaction.  As the log's owner, so that users need
 * no grants on registries.  Between SPI_connect and SPI_finish.
 */
uint64
RegistryRead(InternalQuery *query, Datum *values)
{
	RoleSwitch	saved = RoleSwitchTo(EventsTableGet()->owner);
	uint64		n = InternalQueryRead(query, values, NULL, GetLatestSnapshot());

	RoleSwitchBack(&saved);
	return n;
}

/* Write a registry as the log's owner; the right to do so is EXECUTE. */
uint64
RegistryWrite(InternalQuery *query, Datum *values, const char *nulls)
{
	RoleSwitch	saved;
	uint64		n;

	SPI_connect();
	saved = RoleSwitchTo(EventsTableGet()->owner);
	n = InternalQueryWrite(query, values, nulls);
	RoleSwitchBack(&saved);
	SPI_finish();
	return n;
}

/* The callback can not look oids up, so every lookup makes sure they are known. */
static void
learn_registry_relids(void)
{
	size_t		i;

	if (registry_relids_known)
		return;
	registry_relids_known = true;
	for (i = 0; i < lengthof(registry_tables); i++)
		registry_relids[i] = CqrsEsRelid(registry_tables[i]);
}

static void
invalidate_registry(Datum arg, Oid relid)
{
	size_t		i;

	if (relid == InvalidOid || !registry_relids_known)
	{
		registry_generation++;
		registry_relids_known = false;
		return;
	}
	for (i = 0; i < lengthof(registry_tables); i++)
		if (relid == registry_relids[i])
		{
			registry_generation++;
			registry_relids_known = false;
		}
}

static void
invalidate_derived(Datum arg, int cacheid, uint32 hashvalue)
{
	registry_generation++;
}
