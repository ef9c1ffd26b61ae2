/*-------------------------------------------------------------------------
 * upcast.h
 *	  Old payload version -> current one, on every way out of the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_UPCAST_H
#define CQRS_ES_UPCAST_H

#include "base/registry_function.h"
#include "log/events.h"

extern void UpcastInit(void);
extern void UpcastEvent(Event *event, FunctionCalls *calls);
extern bool UpcastLifts(const Event *event);
extern void UpcastRequireRights(const text *event_type);
extern text *UpcastNewest(const text *event_type, text *version);
extern text *UpcastUnknown(const text *event_type, const text *version);
extern const char *UpcastFingerprint(const char **row_versions);

#endif							/* CQRS_ES_UPCAST_H */
