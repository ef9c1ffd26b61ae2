/*-------------------------------------------------------------------------
 * registry.c
 *	  Declarations: aggregates, and how every registry is cached.
 *
 * A registry is a small table of declarations: aggregates, reducers, handlers ...
 * Each belongs to a file of its own, which says so at Init (RegistryRegister),
 * knows how to read it (a RegistryCache with a loader), and finds what is
 * declared with RegistryLookup.  Every backend caches what it read.  A
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
 * So an entry may be used over anything that happens meanwhile, though it may
 * be old by then; whoever needs it new looks it up again.  No loop may wait for
 * the generation to stay as it is, since anybody can change it at any time.
 * Where a transaction goes on for long (a rebuild, many appends) beside others
 * who create functions, that would pile up; so those who look up often say
 * when they begin and when they are done with all entries (RegistryEnter,
 * RegistryLeave), and when nobody is left who has any, the memory goes at once.
 *
 * The order of locks.  Whoever declares, changes or drops something takes these,
 * all to the end of the transaction, and looks at nothing that counts before it
 * is locked: what was found by name before is looked up again.
 *
 *	1. The row that the declaration belongs to, with the newest snapshot in every
 *	   isolation level: the aggregate type, FOR NO KEY UPDATE to define or drop
 *	   its reducers and commands, FOR KEY SHARE to create a projection of its
 *	   states, FOR UPDATE to drop it; the projection, by an UPDATE that changes
 *	   nothing for its handlers, FOR UPDATE to pause, resume or rebuild it, by
 *	   its DELETE.  Upcasters belong to nobody: they lock their table.
 *	2. The schemas of the search_path that is kept (DefinerSearchPath).
 *	3. The function that is named (registry_function.c), the read models by oid,
 *	   or whatever the parser locks of a statement.
 *	4. The role that is to be the owner or definer (RequireRole).
 *
 * DROP takes its lock of 2 to 4 against all others before it looks for what
 * depends on the object, and our event trigger looks at the registries with the
 * newest snapshot before that is let go.  So either the drop waits and then finds
 * the declaration, or who declares waits and then finds nothing.  Schemas come
 * before what is in them, as in DROP SCHEMA ... CASCADE; rows of registries
 * before functions, since one in use can only be dropped behind its declaration;
 * roles last, as in DROP OWNED and DROP ROLE.
 *
 * Who only runs what was declared locks none of these.  What has been dropped by
 * then is an error of SQLSTATE 42xxx, and that of a snapshot's reducer a warning.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
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

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/settings.h"
#include "log/events.h"

#define MAX_REGISTRIES 16

/* their tables, and oids once these have been looked up */
static const char *tables[MAX_REGISTRIES];
static Oid	relids[MAX_REGISTRIES];
static int	nregistries = 0;
static bool relids_known = false;

/* a cache that has grown to this, mostly by names that mean nothing, starts anew */
#define MAX_CACHE_ENTRIES 4096

static uint64 registry_generation = 1;

/* caches that were thrown away in this transaction, and who may still use them */
static MemoryContext retired = NULL;
static int	users = 0;
static bool used_to_the_end = false;

PG_FUNCTION_INFO_V1(cqrs_es_registry_changed);
PG_FUNCTION_INFO_V1(cqrs_es_create_aggregate);
PG_FUNCTION_INFO_V1(cqrs_es_alter_aggregate);
PG_FUNCTION_INFO_V1(cqrs_es_drop_aggregate);

/* Arguments of create_aggregate and alter_aggregate. */
typedef struct AggregateArgs
{
	char	   *type;
	Datum		values[4];
	char		nulls[4];
}			AggregateArgs;

static AggregateArgs aggregate_args(FunctionCallInfo fcinfo);
static bool lock_aggregate(InternalQuery *query, const text *type);
pg_noreturn static void report_undeclared(const char *type);
static RegistryEntry *find_entry(RegistryCache *cache, const text *key);
static void start_anew(RegistryCache *cache);
static void at_transaction_end(XactEvent event, void *arg);
static RoleSwitch act_as_owner(void);
static void learn_relids(void);
static void invalidate_registry(Datum arg, Oid relid);
static void invalidate_derived(Datum arg, int cacheid, uint32 hashvalue);

void
RegistryInit(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	CacheRegisterRelcacheCallback(invalidate_registry, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, invalidate_derived, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, invalidate_derived, (Datum) 0);
}

/* This table of ours is a registry, with the trigger registry_changed; called by Inits only. */
void
RegistryRegister(const char *table)
{
	if (nregistries >= MAX_REGISTRIES)
		elog(ERROR, "too many registries");
	tables[nregistries++] = table;
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

/* SQL: create_aggregate(aggregate_type, initial_state, snapshot_every, keep_snapshots) */
Datum
cqrs_es_create_aggregate(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.aggregates"
		" (aggregate_type, initial_state, snapshot_every, keep_snapshots)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		.nargs = 4,.argtypes = {TEXTOID, JSONBOID, INT4OID, INT4OID}
	};
	AggregateArgs args = aggregate_args(fcinfo);
	int			i;

	for (i = 1; i < 4; i++)
		if (args.nulls[i] != ' ')
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null",
							i == 1 ? "initial_state" : i == 2 ? "snapshot_every" : "keep_snapshots")));
	if (RegistryWrite(&query, args.values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("aggregate type \"%s\" already exists", args.type),
				 errhint("Change it with alter_aggregate().")));
	PG_RETURN_VOID();
}

/* SQL: alter_aggregate, the same arguments; null leaves a property as it is. */
Datum
cqrs_es_alter_aggregate(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.aggregates SET"
		" initial_state = coalesce($2, initial_state),"
		" snapshot_every = coalesce($3, snapshot_every),"
		" keep_snapshots = coalesce($4, keep_snapshots)"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 4,.argtypes = {TEXTOID, JSONBOID, INT4OID, INT4OID}
	};
	AggregateArgs args = aggregate_args(fcinfo);

	if (RegistryWrite(&query, args.values, args.nulls) == 0)
		report_undeclared(args.type);
	PG_RETURN_VOID();
}

/*
 * SQL: drop_aggregate(aggregate_type).  Its reducers and commands go with it,
 * and the snapshots that they made; its events stay.  2BP01 while a projection
 * keeps its states.
 */
Datum
cqrs_es_drop_aggregate(PG_FUNCTION_ARGS)
{
	static InternalQuery lock = {
		.sql = "SELECT FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop_reducers = {
		.sql = "DELETE FROM cqrs_es.reducers WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop_commands = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop_snapshots = {
		.sql = "DELETE FROM cqrs_es.snapshots"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND fingerprint IS NOT NULL",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.aggregates WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery kept_by = {
		.sql = "SELECT name FROM cqrs_es.projections"
		" WHERE state_of OPERATOR(pg_catalog.=) $1 ORDER BY name LIMIT 1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	Datum		value = PointerGetDatum(type);

	/* who declares something of it meanwhile has done so, or will find it gone */
	if (!lock_aggregate(&lock, type))
		report_undeclared(text_to_cstring(type));
	SPI_connect();
	if (RegistryRead(&kept_by, &value) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop aggregate type \"%s\" because a projection keeps its states",
						text_to_cstring(type)),
				 errdetail("It is projection \"%s\".",
						   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("Drop that first.")));
	SPI_finish();
	(void) RegistryWrite(&drop, &value, NULL);
	(void) RegistryWrite(&drop_reducers, &value, NULL);
	(void) RegistryWrite(&drop_commands, &value, NULL);
	(void) RegistryWrite(&drop_snapshots, &value, NULL);
	PG_RETURN_VOID();
}

/* The arguments that create and alter share, as parameters of their statements. */
static AggregateArgs
aggregate_args(FunctionCallInfo fcinfo)
{
	AggregateArgs args;
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	int			i;

	args.type = text_to_cstring(type);
	args.values[0] = PointerGetDatum(type);
	for (i = 1; i < 4; i++)
		args.values[i] = fcinfo->args[i].value;
	for (i = 0; i < 4; i++)
		args.nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("snapshot_every must not be negative"),
				 errhint("0 takes no snapshots.")));
	if (!PG_ARGISNULL(3) && PG_GETARG_INT32(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep_snapshots must be greater than zero")));
	return args;
}

/*
 * Keep an aggregate type declared until the end of the transaction, and, to
 * change what is declared of it, keep others from doing so; false when it is not
 * declared.  40001 above READ COMMITTED when it is dropped meanwhile.
 */
bool
RegistryLockAggregate(const text *type, bool change)
{
	static InternalQuery to_keep = {
		.sql = "SELECT FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery to_change = {
		.sql = "SELECT FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};

	return lock_aggregate(change ? &to_change : &to_keep, type);
}

/* Lock the row of an aggregate type with a query; is it there? */
static bool
lock_aggregate(InternalQuery *query, const text *type)
{
	Datum		value = PointerGetDatum(type);

	return RegistryWrite(query, &value, NULL) > 0;
}

static void
report_undeclared(const char *type)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDECLARED_AGGREGATE),
			 errmsg("aggregate type \"%s\" is not declared", type)));
}

/*
 * The cache's entry for a key of at most 255 bytes (22001), loaded if need be;
 * NULL is the key of a cache with one entry alone.  Raises what the loader raises;
 * then there is no entry.  It is good until the outermost RegistryLeave, or
 * without one until the end of the transaction.
 */
void *
RegistryLookup(RegistryCache *cache, const text *key)
{
	RegistryEntry *entry = find_entry(cache, key);
	MemoryContext memory = cache->memory;

	if (entry->is_loaded)
		return entry;
	/* another attempt may have failed half-way */
	memset((char *) entry + sizeof(RegistryEntry), 0, cache->entry_size - sizeof(RegistryEntry));
	entry->generation = cache->generation;
	SPI_connect();
	cache->load(entry, key, memory);
	SPI_finish();
	entry->is_loaded = true;
	return entry;
}

/* The entry for a key in the cache as it has to be now, loaded or not. */
static RegistryEntry *
find_entry(RegistryCache *cache, const text *key)
{
	bool		found;
	RegistryEntry *entry;
	char		name[REGISTRY_KEY_BYTES] = {0};

	/* a transaction that holds all its locks already would not hear of changes */
	AcceptInvalidationMessages();
	learn_relids();
	if (users == 0)
		used_to_the_end = true;
	if (cache->memory == NULL || cache->generation != registry_generation ||
		hash_get_num_entries(cache->entries) >= MAX_CACHE_ENTRIES)
		start_anew(cache);
	if (key != NULL && VARSIZE_ANY_EXHDR(key) >= REGISTRY_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("name \"%.32s...\" is too long", VARDATA_ANY(key)),
				 errdetail("At most %d bytes are possible.", REGISTRY_KEY_BYTES - 1)));
	if (key != NULL)
		memcpy(name, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	entry = hash_search(cache->entries, name, HASH_ENTER, &found);
	if (!found)
		entry->is_loaded = false;
	return entry;
}

/* An empty cache; what was in it lasts as long as its entries may be used. */
static void
start_anew(RegistryCache *cache)
{
	HASHCTL		control = {0};
	MemoryContext memory;

	if (retired == NULL)
		retired = AllocSetContextCreate(TopTransactionContext, "cqrs_es retired registry caches",
										ALLOCSET_SMALL_SIZES);
	if (cache->memory)
		MemoryContextSetParent(cache->memory, retired);
	cache->memory = NULL;

	/* an error on the way leaves no cache rather than half of one */
	memory = AllocSetContextCreate(TopTransactionContext, "cqrs_es registry cache",
								   ALLOCSET_SMALL_SIZES);
	MemoryContextSetIdentifier(memory, cache->name);
	control.keysize = REGISTRY_KEY_BYTES;
	control.entrysize = cache->entry_size;
	control.hcxt = memory;
	cache->entries = hash_create(cache->name, 64, &control,
								 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	MemoryContextSetParent(memory, CacheMemoryContext);
	cache->memory = memory;
	cache->generation = registry_generation;
}

/*
 * Begin to use entries, which all stay until the RegistryLeave that belongs to
 * this.  The two nest.  After an error in between nothing is left, and what was
 * thrown away stays to the end of the transaction.
 */
void
RegistryEnter(void)
{
	users++;
}

void
RegistryLeave(void)
{
	if (--users == 0 && !used_to_the_end && retired != NULL)
		MemoryContextReset(retired);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	retired = NULL;				/* goes with the transaction */
	users = 0;
	used_to_the_end = false;
}

/* Counts changes of registries: what was derived from them before is old now. */
uint64
RegistryGeneration(void)
{
	learn_relids();
	return registry_generation;
}

/*
 * Keep a plan, in place of an earlier one, with the cached `entry` that has it in
 * *kept.  A plan that is replaced goes with its entry: all caches start anew with
 * the next lookup, and what is in use lasts as ever.
 */
void
RegistryKeepPlan(void *entry, SPIPlanPtr *kept, SPIPlanPtr plan)
{
	KeepPlanWith(plan, entry);
	if (*kept != NULL)
		registry_generation++;
	*kept = plan;
}

/*
 * Start all caches anew with the next lookup: what one of them found missing may
 * come without anybody telling us.
 */
void
RegistryForget(void)
{
	registry_generation++;
}

/*
 * Read a registry with the newest snapshot whatever the isolation level, for
 * a cache outlives the transaction.  As the registries' owner, so that users
 * need no grants on them, and with fixed settings, since fingerprints are made of
 * what is read.  Between SPI_connect and SPI_finish.
 */
uint64
RegistryRead(InternalQuery *query, Datum *values)
{
	RoleSwitch	saved = act_as_owner();
	uint64		n;

	n = InternalQueryRead(query, values, NULL, GetLatestSnapshot());
	RoleSwitchBack(&saved);
	return n;
}

/*
 * Write a registry as its owner, or lock rows of it; the right to do so is
 * EXECUTE.  As in RegistryRead the newest snapshot counts: what was declared
 * after this transaction began is dropped with what it belongs to.
 */
uint64
RegistryWrite(InternalQuery *query, Datum *values, const char *nulls)
{
	uint64		n;

	SPI_connect();
	n = RegistryWriteRows(query, values, nulls);
	SPI_finish();
	return n;
}

/* The same between SPI_connect and SPI_finish, for the rows that come of it. */
uint64
RegistryWriteRows(InternalQuery *query, Datum *values, const char *nulls)
{
	RoleSwitch	saved = act_as_owner();
	uint64		n;

	n = InternalQueryWriteNewest(query, values, nulls);
	RoleSwitchBack(&saved);
	return n;
}

/* The registries belong to one role, the owner of the extension. */
static RoleSwitch
act_as_owner(void)
{
	RoleSwitch	saved = RoleSwitchToOwner(tables[0]);

	SettingsFix(&saved.guc_level);
	return saved;
}

/* The callback can not look oids up, so every lookup makes sure they are known. */
static void
learn_relids(void)
{
	uint64		started = registry_generation;
	int			i;

	if (relids_known)
		return;
	for (i = 0; i < nregistries; i++)
		relids[i] = CqrsEsRelid(tables[i]);
	/* until they are, every invalidation counts */
	relids_known = started == registry_generation;
}

static void
invalidate_registry(Datum arg, Oid relid)
{
	int			i;

	if (relid == InvalidOid || !relids_known)
	{
		registry_generation++;
		relids_known = false;
		return;
	}
	for (i = 0; i < nregistries; i++)
		if (relid == relids[i])
		{
			registry_generation++;
			relids_known = false;
		}
}

static void
invalidate_derived(Datum arg, int cacheid, uint32 hashvalue)
{
	registry_generation++;
}
