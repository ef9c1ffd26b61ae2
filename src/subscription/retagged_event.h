/*-------------------------------------------------------------------------
 * retagged_event.h
 *	  Events that get tags behind the positions of those who follow the log by tags.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RETAGGED_EVENT_H
#define CQRS_ES_RETAGGED_EVENT_H

extern void RetaggedEventInit(void);

#endif							/* CQRS_ES_RETAGGED_EVENT_H */
