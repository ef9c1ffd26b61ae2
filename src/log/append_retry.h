/*-------------------------------------------------------------------------
 * append_retry.h
 *	  Is it the same append again?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_APPEND_RETRY_H
#define CQRS_ES_APPEND_RETRY_H

#include "log/append_request.h"
#include "log/event_scan.h"

/* A request that may be one that came before. */
typedef struct AppendRetry
{
	const AppendRequest *append;
	pg_uuid_t **ids;			/* that were given, in order */
	uint64	   *hashes;			/* of these */
	int			nids;
	int64		searched_to;	/* the stream has none of them up to here */
} AppendRetry;

extern void AppendRetryBegin(AppendRetry *retry, const AppendRequest *append);
extern bool AppendRetryFind(AppendRetry *retry, const StreamTip *tip, AppendResult *result);
pg_noreturn extern void AppendRetryReportPart(const AppendRetry *retry,
											  const AppendResult *found);

#endif							/* CQRS_ES_APPEND_RETRY_H */
