/*-------------------------------------------------------------------------
 * boundary.h
 *	  Boundaries: declared, changed, dropped, loaded.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BOUNDARY_H
#define CQRS_ES_BOUNDARY_H

#include "base/registry.h"
#include "aggregate/state_rules.h"
#include "boundary/boundary_query.h"

#define BOUNDARY_MAX_BYTES	255

/* A declared boundary.  Lives in the registry cache, until the transaction ends. */
typedef struct Boundary
{
	RegistryEntry entry;		/* its key is the boundary's name */
	bool		declared;
	StateRules	rules;			/* the fingerprint covers all definitions of tags, too */
	int32		snapshot_every; /* 0: never */
	BoundaryQuery *query;
} Boundary;

extern const StateOwner BoundaryOwner;

extern void BoundaryInit(void);
extern Boundary *BoundaryRequire(const text *name);
extern bool BoundaryIsCurrent(const Boundary *boundary);
extern Jsonb *BoundaryKeys(NullableDatum arg, const char *what);

#endif							/* CQRS_ES_BOUNDARY_H */
