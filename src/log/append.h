/*-------------------------------------------------------------------------
 * append.h
 *	  The one way in.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_APPEND_H
#define CQRS_ES_APPEND_H

#include "fmgr.h"

#include "base/compat.h"
#include "base/stream_key.h"
#include "log/append_request.h"

extern bool AppendEvents(AppendRequest *append, AppendResult *result);
extern bool AppendVersionFits(int64 expected, int64 version);
pg_noreturn extern void AppendReportConflict(const StreamKey *key, int64 expected,
											 int64 version);

#endif							/* CQRS_ES_APPEND_H */
