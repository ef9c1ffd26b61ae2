/*-------------------------------------------------------------------------
 * skipped_event.h
 *	  Events that a projection could not handle, and that were stepped over.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SKIPPED_EVENT_H
#define CQRS_ES_SKIPPED_EVENT_H

#include "log/events.h"

/* An event that was skipped. */
typedef struct SkippedEvent
{
	text	   *aggregate_type;
	text	   *aggregate_id;
	text	   *tenant_id;
	int64		sequence;
	bool		in_rebuild;		/* nothing may be appended for it */
} SkippedEvent;

extern void SkippedEventSave(const char *projection, const Event *event, const ErrorData *error,
							 bool in_rebuild);
extern void SkippedEventDelete(const char *projection, const SkippedEvent *skipped);
extern void SkippedEventForget(const char *projection);
extern SkippedEvent *SkippedEventList(const char *projection, int *n);

#endif							/* CQRS_ES_SKIPPED_EVENT_H */
