/*-------------------------------------------------------------------------
 * handler.h
 *	  What a projection does for an event.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_HANDLER_H
#define CQRS_ES_HANDLER_H

#include "projection/projection.h"

/* What a handler has done in replays. */
typedef struct HandlerTally
{
	const char *event_type;
	bool		seeks_rows;		/* to change them */
	int64		runs;
	int64		rows;			/* that it changed, */
	bool		uncounted;		/* perhaps not all of them */
} HandlerTally;

/* how an old event is replayed */
#define HANDLER_OWN_WORDS	0x01	/* with errors in their own words, for who records
									 * them */
#define HANDLER_GO_ON 0x02		/* a state takes just this one, not all up to its
								 * stream's end */

extern void HandlerInit(void);
extern bool HandlerReplay(Projection *projection, const Event *event, int how);
extern List *HandlerHoldConstraints(Projection *projection);
extern void HandlerCheckConstraints(const Projection *projection);
extern bool HandlerConcerns(Projection *projection, const Event *event);
extern List *HandlerTallies(Projection *projection, List *tallies);
extern List *HandlerProblems(Projection *projection);

#endif							/* CQRS_ES_HANDLER_H */
