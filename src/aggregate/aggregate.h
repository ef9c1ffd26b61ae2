/*-------------------------------------------------------------------------
 * aggregate.h
 *	  Aggregate types: declared, changed, dropped, loaded.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_AGGREGATE_H
#define CQRS_ES_AGGREGATE_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "base/registry.h"
#include "log/events.h"

struct Reducer;

/* A declared aggregate type.  Lives in the registry cache, until the transaction ends. */
typedef struct Aggregate
{
	RegistryEntry entry;		/* its key is the aggregate type */
	bool		declared;
	Jsonb	   *initial_state;
	int32		snapshot_every; /* 0: never */
	int32		keep_snapshots;
	bool		strict;			/* takes what its reducers can apply alone, see strict.c */
	bytea	   *fingerprint;	/* of all that decides what a fold results in */
	char	   *row_versions;	/* of the rows that all that was read from */

	/* reducer.c's */
	int			nreducers;
	struct Reducer *reducers;
} Aggregate;

/*
 * What belongs to aggregate types and is declared or kept elsewhere.  Each member
 * may be NULL.
 */
typedef struct AggregatePart
{
	/*
	 * The aggregate is being loaded: read what decides of its states.  What the
	 * aggregate points to is allocated in `memory`, all texts are added to `source`
	 * (AggregateAddSource), and of which rows it is to row_versions. Between SPI_connect
	 * and SPI_finish.
	 */
	void		(*load) (Aggregate *aggregate, const text *type, MemoryContext memory,
						 StringInfo source, StringInfo row_versions);

	/* The type, its row locked, is about to be dropped: 2BP01 when it cannot be. */
	void		(*refuse_drop) (const text *type);

	/* It has been dropped: this goes with it. */
	void		(*drop) (const text *type);
} AggregatePart;

extern void AggregateInit(void);
extern void AggregateRegister(const AggregatePart *part);
extern void AggregateAddSource(StringInfo source, const char *value);
extern Aggregate *AggregateGet(const text *type);
extern Aggregate *AggregateRequire(const text *type);
extern bool AggregateIsCurrent(const Aggregate *aggregate);
extern void AggregateLock(const text *type, bool change);
extern bool AggregateLockIfDeclared(const text *type, bool change);
extern bool AggregateLockForDrop(const text *type, bool if_exists);

#endif							/* CQRS_ES_AGGREGATE_H */
