/*-------------------------------------------------------------------------
 * aggregate.h
 *	  Aggregate types: declared, changed, dropped, loaded.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_AGGREGATE_H
#define CQRS_ES_AGGREGATE_H

#include "base/registry.h"
#include "log/events.h"
#include "aggregate/state_rules.h"

/* A declared aggregate type.  Lives in the registry cache, until the transaction ends. */
typedef struct Aggregate
{
	RegistryEntry entry;		/* its key is the aggregate type */
	bool		declared;
	StateRules	rules;
	int32		snapshot_every; /* 0: never */
	int32		keep_snapshots;
	bool		strict;			/* takes what its reducers can apply alone, see strict.c */
} Aggregate;

/*
 * What belongs to aggregate types beside the rules of their states, and is declared or
 * kept elsewhere.  Each member may be NULL.
 */
typedef struct AggregatePart
{
	/* The type, its row locked, is about to be dropped: 2BP01 when it cannot be. */
	void		(*refuse_drop) (const text *type);

	/* It has been dropped: this goes with it. */
	void		(*drop) (const text *type);
} AggregatePart;

extern const StateOwner AggregateOwner;

extern void AggregateInit(void);
extern void AggregateRegister(const AggregatePart *part);
extern Aggregate *AggregateGet(const text *type);
extern Aggregate *AggregateRequire(const text *type);
extern bool AggregateIsCurrent(const Aggregate *aggregate);
extern void AggregateLock(const text *type);

#endif							/* CQRS_ES_AGGREGATE_H */
