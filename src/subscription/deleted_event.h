/*-------------------------------------------------------------------------
 * deleted_event.h
 *	  Events that are deleted while subscriptions have them before them.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DELETED_EVENT_H
#define CQRS_ES_DELETED_EVENT_H

extern void DeletedEventInit(void);

#endif							/* CQRS_ES_DELETED_EVENT_H */
