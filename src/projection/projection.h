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
#include "log/event_filter.h"
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
	bool		is_async;		/* appends pass it by; it follows the log by itself, */
	bool		per_stream;		/* each stream for itself */
	bool		keeps_states;	/* of its one aggregate type, in its one read model */

	bool		all_types;		/* is it for all aggregate types, */
	int			ntypes;			/* or for these? */
	text	  **types;
	EventFilter filter;			/* what else an event must be: it has tags */

	int			nread_models;	/* those that are there, in the order of oids */
	Oid		   *read_models;
	List	   *missing;		/* names of the others (char *) */

	int			nlocks;			/* what an event locks that it concerns, in this order,
								 * which hangs on the mode */
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

/* of one that does not exist */
#define PROJECTION_MISSING_HINT "The view projection_status shows those that do; create_projection() creates one."

/* SQL: what makes a projection of a row p of cqrs_es.projections. */
#define PROJECTION_COLUMNS \
	"p.name, p.tags, " REGISTRY_ROLE("p.owner", "p.owner_name") " AS owner, p.owner_name," \
	" p.paused, p.mode, p.per_stream, p.state_of, p.aggregate_types, " REGISTRY_READ_MODELS " AS read_models," \
	" p.read_model_names"

struct LockedProjection;

/*
 * What is done about asynchronous projections, in a room above this one.  All
 * of it with the row of the projection locked, in the transaction that changes it.
 */
typedef struct ProjectionAsync
{
	/* Something has been appended, in this transaction, that concerns one at work. */
	void		(*appended) (void);

	/* One has been created, paused or at the end of the log. */
	void		(*created) (const Projection *projection);

	/* Before it is changed: nobody works at it, to the end of the transaction. */
	void		(*lock) (const text *name);

	/* One, which is locked, has been dropped, or has another owner. */
	void		(*dropped) (const text *name);
	void		(*given) (const text *name, Oid owner);

	/* Another mode, another order; null as it is.  Locks the row itself. */
	void		(*alter) (const text *name, NullableDatum mode, NullableDatum per_stream);

	/*
	 * It stands still, to the end of the transaction, and what it has handled is in
	 * `handled`.  It goes on behind that.  What has failed is forgotten, since all of it
	 * is handled anew.
	 */
	void		(*hold_still) (struct LockedProjection *locked);
	void		(*go_on) (const struct LockedProjection *locked);
	void		(*forget_failures) (const struct LockedProjection *locked);
	bool		(*has_stopped) (const Projection *projection);

	/* 55000 when something that failed waits: what comes behind it must not be replayed. */
	void		(*refuse_failures) (const struct LockedProjection *locked);
} ProjectionAsync;

extern const ProjectionAsync *ProjectionAsyncPart;

extern void ProjectionInit(void);
extern void ProjectionSetAsync(const ProjectionAsync *async);
extern bool ProjectionModeIsAsync(const text *mode);
extern void ProjectionCheckOrder(bool is_async, bool per_stream);
extern void ProjectionSetHandlers(ProjectionHandlers load);
extern bool ProjectionLockRow(InternalQuery *query, const text *name, bool if_exists);
extern Projection **ProjectionFind(const Event *event, int *n);
extern RoleSwitch ProjectionSwitchToOwner(const Projection *projection);
extern bool ProjectionWants(const Projection *projection, const Event *event);
extern Projection *ProjectionLoad(const text *name);
extern Projection *ProjectionMake(const QueryRow *row, MemoryContext memory);

/* Does nothing run for it in the transactions that append? */
static inline bool
ProjectionIsPassedBy(const Projection *projection)
{
	return projection->paused || projection->is_async;
}

#endif							/* CQRS_ES_PROJECTION_H */
