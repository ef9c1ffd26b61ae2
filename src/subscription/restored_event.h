/*-------------------------------------------------------------------------
 * restored_event.h
 *	  Events that are restored behind the positions of subscriptions.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RESTORED_EVENT_H
#define CQRS_ES_RESTORED_EVENT_H

extern void RestoredEventInit(void);

#endif							/* CQRS_ES_RESTORED_EVENT_H */
