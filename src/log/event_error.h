/*-------------------------------------------------------------------------
 * event_error.h
 *	  Which event an error came of.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_ERROR_H
#define CQRS_ES_EVENT_ERROR_H

#include "log/events.h"

extern int	EventErrorFields(const StreamKey *key, const char *column, const char *datatype);
extern void EventErrorName(ErrorData *error, const Event *event);

#endif							/* CQRS_ES_EVENT_ERROR_H */
