/*-------------------------------------------------------------------------
 * registry.c
 *	  Declarations: how every registry is cached, read and written.
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
 * The caches hold what they derive from functions and roles as well.  Every change
 * of a role, of who is a member of one and of the database (whose owner is one, too) counts, but of
 * functions, which anybody may create at any time, only those do that a loader has looked at (RegistryWatchFunction).  They are known
 * by the hashes with which the server tells of changes: a bit for each, and when
 * another function shares it, that costs a look too many.  Where a loader has looked
 * in vain, whatever comes may be what it looked for, so all count.  A loader looks
 * first and says so after; so when any function has changed while an entry was
 * loaded, the caches start anew.  (What statements mean by the names in them is the
 * business of their plans, of which the server takes care.)
 *
 * An entry may point to one of another cache, which its loader has looked up.  That
 * is so because caches become old together: the other cache was of the same
 * generation or a later one, so when it starts anew this one is old, too, and its next
 * lookup loads it again.
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
 *	   nothing for its handlers, or before its owner or tables change, FOR UPDATE to
 *	   pause, resume or rebuild it, by its DELETE.  Upcasters belong to nobody:
 *	   they lock their table.
 *	2. The schemas of the search_path that is kept (DefinerSearchPath).
 *	3. The function that is named (registry_function.c), the read models by oid,
 *	   or whatever the parser locks of a statement.
 *	4. The role that is to be the owner or definer (DefinerRequireRole).
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
#include "commands/trigger.h"
#include "fmgr.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/distribution.h"
#include "base/extension.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/relation_change.h"
#include "base/role_switch.h"

#define MAX_REGISTRIES 24

/* their tables, and the oids of those that anything hangs on which was looked up */
static const char *tables[MAX_REGISTRIES];
static bool of_all_nodes[MAX_REGISTRIES];
static Oid	relids[MAX_REGISTRIES];
static int	nregistries = 0;
static bool relids_known = false;	/* all of them */

/* one was looked up while relations changed: it may be another, so all changes count */
static bool relids_uncertain = false;
static uint64 relation_changes = 0;

/* a cache that has grown to this, mostly by names that mean nothing, starts anew */
#define MAX_CACHE_ENTRIES 4096

static uint64 registry_generation = 1;

/* by which the server tells of changes of this database, once there is a cache; else 0 */
static uint32 database_hash = 0;

/* the functions whose changes count in this generation, by their hashes; changes of any */
#define WATCHED_BITS 8192
static uint8 watched[WATCHED_BITS / BITS_PER_BYTE];
static bool all_watched = false;
static uint64 function_changes = 0;

/* caches that were thrown away in this transaction, and who may still use them */
static MemoryContext retired = NULL;
static int	users = 0;
static bool used_to_the_end = false;

/* who may have something against a change of any registry */
static void (*guard) (bool of_all_nodes) = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_registry_changed);

static RegistryEntry *find_entry(RegistryCache *cache, const text *key);
static bool is_entry_of(const RegistryEntry *entry, const text *key);
static void own_plan(SPIPlanPtr plan, void *owner);
static void free_plan(void *arg);
static void count_invalidation(void);
static void start_anew(RegistryCache *cache);
static void at_transaction_end(XactEvent event, void *arg);
static RoleSwitch act_as_owner(void);
static void learn_relids(void);
static void learn_relid(int registry);
static void learn_relid_of(const char *table);
static void invalidate_registry(Oid relid);
static void invalidate_function(Datum arg, int cacheid, uint32 hashvalue);
static void invalidate_schema(Datum arg, int cacheid, uint32 hashvalue);
static void invalidate_role(Datum arg, int cacheid, uint32 hashvalue);
static void invalidate_database(Datum arg, int cacheid, uint32 hashvalue);
static void begin_generation(void);

void
RegistryInit(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RelationChangeObserve(invalidate_registry);
	CacheRegisterSyscacheCallback(PROCOID, invalidate_function, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, invalidate_schema, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, invalidate_role, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, invalidate_role, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, invalidate_database, (Datum) 0);
}

/* This table of ours is a registry, with the trigger registry_changed; called by Inits only. */
void
RegistryRegister(const char *table)
{
	if (nregistries >= MAX_REGISTRIES)
		elog(ERROR, "too many registries");
	tables[nregistries++] = table;
}

/* The same of one whose declarations can be those of all nodes of a distributed log. */
void
RegistryRegisterOfAllNodes(const char *table)
{
	of_all_nodes[nregistries] = true;
	RegistryRegister(table);
}

/*
 * Have somebody called who may refuse, by an error, that anything is declared, and is told whether
 * that can be done on all nodes; called by Inits only.
 */
void
RegistrySetGuard(void (*new_guard) (bool of_all_nodes))
{
	guard = new_guard;
}

/*
 * SQL: the statement trigger of every registry table.  QE606 where that is distributed: sessions
 * of other nodes would not hear of it.
 */
Datum
cqrs_es_registry_changed(PG_FUNCTION_ARGS)
{
	Relation	rel;
	bool		everywhere = false;
	int			i;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as a trigger", "registry_changed()")));
	rel = ((TriggerData *) fcinfo->context)->tg_relation;
	DistributionRefuse(rel, "declarations");
	for (i = 0; i < nregistries; i++)
		if (strcmp(tables[i], RelationGetRelationName(rel)) == 0)
			everywhere = of_all_nodes[i];
	guard(everywhere);
	CacheInvalidateRelcache(rel);
	return PointerGetDatum(NULL);
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
	uint64		changes = function_changes;

	if (entry->is_loaded)
		return entry;
	/* another attempt may have failed half-way */
	memset((char *) entry + sizeof(RegistryEntry), 0, cache->entry_size - sizeof(RegistryEntry));
	entry->generation = cache->generation;
	if (cache->table == NULL || !ExtensionIsBlank(cache->table))
	{
		learn_relids();
		SPI_connect();
		cache->load(entry, key, memory);
		SPI_finish();
	}
	entry->is_loaded = true;
	if (changes != function_changes)
		begin_generation();
	return entry;
}

/*
 * Called by loaders: what is being loaded hangs on this function, so that its
 * changes count; on any that may come when it is InvalidOid.
 */
void
RegistryWatchFunction(Oid function)
{
	uint32		bit;

	if (!OidIsValid(function))
	{
		all_watched = true;
		return;
	}
	bit = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(function)) % WATCHED_BITS;
	watched[bit / BITS_PER_BYTE] |= 1 << bit % BITS_PER_BYTE;
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
	learn_relid_of(cache->table);
	if (users == 0)
		used_to_the_end = true;
	/* one cache may point into another: no cache is thrown away alone */
	if (cache->memory != NULL && hash_get_num_entries(cache->entries) >= MAX_CACHE_ENTRIES)
		RegistryForget();
	if (cache->memory != NULL && cache->generation != registry_generation)
		count_invalidation();
	if (cache->memory == NULL || cache->generation != registry_generation)
		start_anew(cache);
	/* mostly the same again */
	if (cache->last != NULL && is_entry_of(cache->last, key))
		return cache->last;
	/* arguments are not that long, nor is what the log's own constraints let in */
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
	cache->last = entry;
	return entry;
}

static bool
is_entry_of(const RegistryEntry *entry, const text *key)
{
	size_t		length = key ? VARSIZE_ANY_EXHDR(key) : 0;

	/* strncmp ends with the entry's key: what is behind it was never written */
	return length < REGISTRY_KEY_BYTES &&
		(length == 0 || strncmp(entry->key, VARDATA_ANY(key), length) == 0) &&
		entry->key[length] == '\0';
}

/*
 * The caches of this session have become old; counted once for all of them.  May
 * itself hear of changes that make them older.
 */
static void
count_invalidation(void)
{
	static uint64 counted = 0;

	if (counted == registry_generation)
		return;
	counted = registry_generation;
	CounterAdd("cache_counts", 0, false);
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
	cache->last = NULL;

	/* the callback can not ask */
	if (database_hash == 0)
		database_hash = GetSysCacheHashValue1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));

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

/* The same for what was derived from this cache alone. */
uint64
RegistryGenerationOf(const RegistryCache *cache)
{
	learn_relid_of(cache->table);
	return registry_generation;
}

/*
 * Counts changes of functions, any there are, and of the schemas that they are in: for who
 * keeps what users' functions came to, which may have called any other.
 */
uint64
RegistryFunctionChanges(void)
{
	return function_changes;
}

/*
 * Keep a plan, in place of an earlier one, with the cached `entry` that has it in
 * *kept.  A plan that is replaced goes with its entry: all caches start anew with
 * the next lookup, and what is in use lasts as ever.
 */
void
RegistryKeepPlan(void *entry, SPIPlanPtr *kept, SPIPlanPtr plan)
{
	own_plan(plan, entry);
	if (*kept != NULL)
		begin_generation();
	*kept = plan;
}

/*
 * Start all caches anew with the next lookup: what one of them found missing may
 * come without anybody telling us.
 */
void
RegistryForget(void)
{
	begin_generation();
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
	return RegistryReadAsOf(query, values, NULL);
}

/*
 * The same as of a snapshot, where several reads have to agree; NULL is the newest
 * one.
 */
uint64
RegistryReadAsOf(InternalQuery *query, Datum *values, Snapshot snapshot)
{
	RoleSwitch	saved = act_as_owner();
	uint64		n;

	n = InternalQueryRead(query, values, NULL, snapshot ? snapshot : GetLatestSnapshot());
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

/*
 * Is there a row that a SELECT of a registry finds, in what is committed now and what
 * this transaction did?  So is found that a definition is there already: then nothing
 * is written, and no session has to read it again.
 */
bool
RegistryHas(InternalQuery *query, Datum *values, const char *nulls)
{
	return RegistryWrite(query, values, nulls) > 0;
}

/*
 * Delete a row that a SELECT finds; false when there is none.  A DELETE that finds nothing
 * would have all sessions read everything again, as any other statement.
 */
bool
RegistryDrop(InternalQuery *row, InternalQuery *drop, Datum *values)
{
	return RegistryHas(row, values, NULL) && RegistryWrite(drop, values, NULL) > 0;
}

/* The same as RegistryWrite between SPI_connect and SPI_finish, for the rows that come of it. */
uint64
RegistryWriteRows(InternalQuery *query, Datum *values, const char *nulls)
{
	RoleSwitch	saved;
	uint64		n;

	ExtensionRefuseOlder();
	saved = act_as_owner();
	n = InternalQueryWriteNewest(query, values, nulls);
	RoleSwitchBack(&saved);
	return n;
}

/* The argument if_exists of drop functions; null is no yes. */
bool
RegistryIfExists(NullableDatum arg)
{
	return !arg.isnull && DatumGetBool(arg.value);
}

/*
 * What is to be dropped is not there, as the message says: an error, or with if_exists
 * the NOTICE that DROP ... IF EXISTS gives.  The hint may be NULL.
 */
void
RegistryReportMissing(bool if_exists, int sqlerrcode, const char *hint, const char *message)
{
	if (if_exists)
		ereport(NOTICE,
				(errmsg("%s, skipping", message)));
	else
		ereport(ERROR,
				(errcode(sqlerrcode),
				 errmsg_internal("%s", message),
				 hint ? errhint("%s", hint) : 0));
}

/* The registries belong to one role, the owner of the extension. */
static RoleSwitch
act_as_owner(void)
{
	RoleSwitch	saved = RoleSwitchToOwner(tables[0]);

	FixedSettingsSet(&saved.guc_level);
	/* over a catalog without statistics a query looks dear enough to be compiled first */
	if (jit_enabled)
		(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

/*
 * The callback can not look oids up, so every lookup makes sure that those are known which it
 * hangs on: all when anything is read, and of a cache without rows its own table alone, for
 * that is all that the first append of a session asks for where nothing is declared.
 */
static void
learn_relids(void)
{
	bool		all = true;
	int			i;

	if (relids_known)
		return;
	for (i = 0; i < nregistries; i++)
		learn_relid(i);
	/* a change may have taken some back */
	for (i = 0; i < nregistries; i++)
		all &= OidIsValid(relids[i]);
	relids_known = all;
	relids_uncertain |= !all;
}

static void
learn_relid_of(const char *table)
{
	int			i;

	if (relids_known)
		return;
	for (i = 0; i < nregistries; i++)
		if (table != NULL && strcmp(tables[i], table) == 0)
		{
			learn_relid(i);
			return;
		}
	learn_relids();
}

static void
learn_relid(int registry)
{
	uint64		started = relation_changes;
	Oid			relid;

	if (OidIsValid(relids[registry]))
		return;
	/* an older version has not all of them */
	relid = ExtensionRelidIfUpdated(tables[registry]);
	relids[registry] = relid;
	if (started != relation_changes)
		relids_uncertain = true;
}

static void
invalidate_registry(Oid relid)
{
	bool		counts = relid == InvalidOid || relids_uncertain;
	int			i;

	relation_changes++;
	for (i = 0; i < nregistries && !counts; i++)
		counts = relid == relids[i];
	if (!counts)
		return;
	begin_generation();
	relids_known = false;
	relids_uncertain = false;
	memset(relids, 0, sizeof(relids));
}

static void
invalidate_function(Datum arg, int cacheid, uint32 hashvalue)
{
	uint32		bit = hashvalue % WATCHED_BITS;

	function_changes++;
	/* 0 means all of them */
	if (hashvalue == 0 || all_watched ||
		(watched[bit / BITS_PER_BYTE] & (1 << bit % BITS_PER_BYTE)) != 0)
		begin_generation();
}

/* With its schema's name a function that was missing may have come. */
static void
invalidate_schema(Datum arg, int cacheid, uint32 hashvalue)
{
	function_changes++;
	if (all_watched)
		begin_generation();
}

static void
invalidate_role(Datum arg, int cacheid, uint32 hashvalue)
{
	begin_generation();
}

/* Its owner is a member of pg_database_owner.  Others' databases are none of our business. */
static void
invalidate_database(Datum arg, int cacheid, uint32 hashvalue)
{
	if (hashvalue == 0 || database_hash == 0 || hashvalue == database_hash)
		begin_generation();
}

/* All caches are old now, and what they hang on will be said anew. */
static void
begin_generation(void)
{
	registry_generation++;
	memset(watched, 0, sizeof(watched));
	all_watched = false;
}

/*
 * Keep a plan for as long as the chunk of memory that it belongs to: it is
 * freed when the chunk's memory context is reset or deleted.
 */
static void
own_plan(SPIPlanPtr plan, void *owner)
{
	MemoryContext memory = GetMemoryChunkContext(owner);
	MemoryContextCallback *callback = MemoryContextAlloc(memory, sizeof(MemoryContextCallback));

	SPI_keepplan(plan);
	callback->func = free_plan;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(memory, callback);
}

static void
free_plan(void *arg)
{
	SPI_freeplan((SPIPlanPtr) arg);
}
