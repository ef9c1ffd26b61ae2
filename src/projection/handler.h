/*-------------------------------------------------------------------------
 * handler.h
 *	  What a projection does for an event.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_HANDLER_H
#define CQRS_ES_HANDLER_H

#include "base/definer.h"
#include "log/events.h"

struct StateProjection;

/*
 * A handler: one SQL statement, a function that takes the event, or the
 * ready-made one that keeps the states of aggregates (state_projection.c).  The
 * caller fills it, and keeps what it points to until the end of the transaction
 * at least.
 */
typedef struct Handler
{
	const char *projection;
	Definer		definer;
	DefinerStatement *statement;	/* that calls the function, or NULL */
	struct StateProjection *state;	/* or NULL */
	char	   *missing_table;	/* a read model of the projection that is not there, or NULL */
}			Handler;

extern DefinerStatement * HandlerStatement(const char *statement, const char *function,
										   const Definer * definer);
extern void HandlerRun(const Handler *handler, const Event *event, bool replayed);
extern char *HandlerProblem(const Handler *handler);

#endif							/* CQRS_ES_HANDLER_H */
