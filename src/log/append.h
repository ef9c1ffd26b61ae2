/*-------------------------------------------------------------------------
 * append.h
 *	  The one way in.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_APPEND_H
#define CQRS_ES_APPEND_H

#include "base/compat.h"
#include "log/append_request.h"

/* Where the stream is then, and the log. */
typedef struct AppendResult
{
	int64		version;
	int64		global_position;	/* of the last event */
}			AppendResult;

extern bool AppendEvents(AppendRequest *append, AppendResult *result);
extern void AppendPrevent(void);
extern bool AppendVersionFits(int64 expected, int64 version);
pg_noreturn extern void AppendReportConflict(const StreamKey *key, int64 expected,
											 int64 version);

#endif							/* CQRS_ES_APPEND_H */
