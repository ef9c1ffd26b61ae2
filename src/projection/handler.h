/*-------------------------------------------------------------------------
 * handler.h
 *	  What a projection does for an event.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_HANDLER_H
#define CQRS_ES_HANDLER_H

#include "projection/projection.h"

extern void HandlerInit(void);
extern bool HandlerReplay(Projection *projection, const Event *event);
extern List *HandlerProblems(Projection *projection);

#endif							/* CQRS_ES_HANDLER_H */
