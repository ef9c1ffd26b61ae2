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
	bool		is_function;	/* whose rows are not known */
	bool		seeks_rows;		/* to change them */
	int64		runs;
	int64		rows;			/* that it changed */
} HandlerTally;

extern void HandlerInit(void);
extern bool HandlerReplay(Projection *projection, const Event *event, bool own_words);
extern bool HandlerConcerns(Projection *projection, const Event *event);
extern List *HandlerTallies(Projection *projection, List *tallies);
extern List *HandlerProblems(Projection *projection);

#endif							/* CQRS_ES_HANDLER_H */
