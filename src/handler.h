/*-------------------------------------------------------------------------
 * handler.h
 *	  One statement of a projection: compile it, run it for an event.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_HANDLER_H
#define CQRS_ES_HANDLER_H

#include "executor/spi.h"

#include "events.h"

/*
 * A handler.  The caller fills the first block and keeps the struct, and what
 * it points to, until the end of the transaction at least.
 */
typedef struct Handler
{
	char	   *projection;
	char	   *statement;
	Oid			definer;
	char	   *search_path;

	/* private to handler.c */
	SPIPlanPtr	plan;			/* NULL until first used */
	bool		uses_event;		/* does it take the event as a whole? */
}			Handler;

extern void HandlerValidate(Handler *handler);
extern void HandlerRun(Handler *handler, const Event *event);

#endif							/* CQRS_ES_HANDLER_H */
