/*-------------------------------------------------------------------------
 * handler.h
 *	  What a projection does for an event: compile it, run it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_HANDLER_H
#define CQRS_ES_HANDLER_H

#include "executor/spi.h"

#include "base/internal_query.h"
#include "log/events.h"

struct StateProjection;

/*
 * A handler: one SQL statement, a function that takes the event, or the
 * ready-made one that keeps the states of aggregates (state_projection.c).  The
 * caller fills the first block and keeps the struct, and what it points to,
 * until the end of the transaction at least.
 */
typedef struct Handler
{
	char	   *projection;
	char	   *statement;		/* NULL: not a statement */
	char	   *function;		/* its signature, or NULL */
	struct StateProjection *state;	/* or NULL */
	Oid			definer;
	char	   *definer_name;
	char	   *missing_table;	/* a read model of the projection that is not there, or NULL */
	char	   *search_path;

	/* private to handler.c */
	SPIPlanPtr	plan;			/* NULL until first used */
	bool		uses_event;		/* does it take the event as a whole? */
}			Handler;

extern void HandlerInit(void);
extern void HandlerValidate(Handler *handler);
extern void HandlerRun(Handler *handler, const Event *event, bool replayed);
extern char *HandlerProblem(const Handler *handler);
extern RoleSwitch HandlerBecomeDefiner(const Handler *handler);

#endif							/* CQRS_ES_HANDLER_H */
