/*-------------------------------------------------------------------------
 * projection.h
 *	  Projections: what they are, and which ones an event concerns.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROJECTION_H
#define CQRS_ES_PROJECTION_H

#include "nodes/pg_list.h"

#include "base/definer.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "log/events.h"

#define PROJECTION_NAME_MAX_BYTES 255

/* a handler's event type that means all of them */
#define PROJECTION_ALL_EVENT_TYPES "*"

/*
 * A projection as it is declared: in a cache, where it lives as entries do
 * (registry.c), or a copy of whoever has locked its row.
 */
typedef struct Projection
{
	RegistryEntry entry;		/* the cache's */
	MemoryContext memory;		/* holds all of it, its handlers and their plans */
	char	   *name;			/* NULL in an entry: there is none of that name */
	Definer		owner;
	bool		paused;
	bool		keeps_states;	/* of its one aggregate type, in its one read model */

	bool		all_types;		/* is it for all aggregate types, */
	int			ntypes;			/* or for these? */
	text	  **types;

	int			nread_models;	/* those that are there, in the order of oids */
	Oid		   *read_models;
	List	   *missing;		/* names of the others (char *) */

	int			nlocks;			/* what an event locks that it concerns, in this order */
	Oid		   *locks;

	struct HandlerList *handlers;	/* handler.c's; of a copy NULL until first used */
	List	   *tallies;		/* what those did that a copy had before */
} Projection;

/*
 * Read the handlers of a projection as of a snapshot, NULL for the newest.  In the
 * current memory context, where their plans will be kept, too.
 */
typedef struct HandlerList *(*ProjectionHandlers) (const Projection *projection,
												   Snapshot snapshot);

/* SQL: what makes a projection of a row p of cqrs_es.projections. */
#define PROJECTION_COLUMNS \
	"p.name, " REGISTRY_ROLE("p.owner", "p.owner_name") " AS owner, p.owner_name," \
	" p.paused, p.state_of, p.aggregate_types, " REGISTRY_READ_MODELS " AS read_models," \
	" p.read_model_names"

extern void ProjectionInit(void);
extern void ProjectionSetHandlers(ProjectionHandlers load);
extern bool ProjectionLockRow(InternalQuery *query, const text *name, bool if_exists);
extern Projection **ProjectionFind(const Event *event, int *n);
extern bool ProjectionConcerns(const Projection *projection, const text *aggregate_type);
extern Projection *ProjectionLoad(const text *name);
extern Projection *ProjectionMake(const QueryRow *row, MemoryContext memory);

#endif							/* CQRS_ES_PROJECTION_H */
