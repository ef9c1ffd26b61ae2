/*-------------------------------------------------------------------------
 * registry.h
 *	  Declarations: how every registry is cached, read and written.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REGISTRY_H
#define CQRS_ES_REGISTRY_H

#include "utils/hsearch.h"

#include "base/internal_query.h"

/* keys of registry caches: texts of at most 255 bytes and their end */
#define REGISTRY_KEY_BYTES 256

/*
 * What every entry of a registry cache begins with.  The rest of it is the
 * loader's: all zero before.
 */
typedef struct RegistryEntry
{
	char		key[REGISTRY_KEY_BYTES];
	uint64		generation;		/* of the registries, before it was loaded */
	bool		is_loaded;
} RegistryEntry;

/*
 * Fill in the entry of a key, which is NULL where there is one entry alone.  Called
 * between SPI_connect and SPI_finish; what the entry points to must be allocated
 * in `memory`.  Whatever it raises leaves no entry.
 */
typedef void (*RegistryLoader) (void *entry, const text *key, MemoryContext memory);

/*
 * What a backend remembers of registries: a hash table by name in a memory
 * context of its own, both thrown away when any registry changes.  Static, with
 * the first block filled in.
 */
typedef struct RegistryCache
{
	const char *name;
	Size		entry_size;		/* the entry begins with a RegistryEntry */
	RegistryLoader load;
	const char *table;			/* without rows in which an entry is of zeros, and is not
								 * loaded; may be NULL */

	/* private to registry.c */
	uint64		generation;
	MemoryContext memory;
	HTAB	   *entries;
	RegistryEntry *last;		/* that was looked up; NULL: none was */
} RegistryCache;

extern void RegistryInit(void);
extern void RegistrySetGuard(void (*guard) (bool of_all_nodes));
extern void RegistryRegister(const char *table);
extern void RegistryRegisterOfAllNodes(const char *table);
extern void *RegistryLookup(RegistryCache *cache, const text *key);
extern void RegistryWatchFunction(Oid function);
extern void RegistryEnter(void);
extern void RegistryLeave(void);
extern uint64 RegistryGeneration(void);
extern uint64 RegistryFunctionChanges(void);
extern uint64 RegistryGenerationOf(const RegistryCache *cache);
extern void RegistryForget(void);
extern void RegistryKeepPlan(void *entry, SPIPlanPtr *kept, SPIPlanPtr plan);
extern uint64 RegistryRead(InternalQuery *query, Datum *values);
extern uint64 RegistryReadAsOf(InternalQuery *query, Datum *values, Snapshot snapshot);
extern bool RegistryHas(InternalQuery *query, Datum *values, const char *nulls);
extern bool RegistryDrop(InternalQuery *row, InternalQuery *drop, Datum *values);
extern bool RegistryIfExists(NullableDatum arg);
extern void RegistryReportMissing(bool if_exists, int sqlerrcode, const char *hint,
								  const char *message);
extern uint64 RegistryWrite(InternalQuery *query, Datum *values, const char *nulls);
extern uint64 RegistryWriteRows(InternalQuery *query, Datum *values, const char *nulls);

#endif							/* CQRS_ES_REGISTRY_H */
