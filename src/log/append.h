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

/*
 * What must hold beside the streams' versions.  A room above knows more of it: it is the first
 * member of something there.
 */
typedef struct AppendCondition
{
	bool		(*holds) (struct AppendCondition *condition);
	void		(*report) (struct AppendCondition *condition);	/* raises why it does not */
	const struct TagSlotSet *asks;	/* what it needs locked, with the events' tags */
} AppendCondition;

/* One append, to one stream or several. */
typedef struct AppendCall
{
	AppendRequest *requests;	/* one for each stream, in the order of StreamKeyCompare;
								 * those that nobody else can name may come last */
	int			nrequests;
	Event	  **in_order;		/* the events of all of them as their positions are to
								 * rise; NULL: as they stand */
	int			nevents;		/* of in_order */
	AppendCondition *condition; /* or NULL */
	AppendResult *results;		/* one for each request, to be filled in */
	bool		fails;			/* the caller makes an error of a version that does not
								 * fit */
} AppendCall;

extern int	AppendToStreams(AppendCall *call);
extern bool AppendEvents(AppendRequest *append, AppendResult *result);
extern bool AppendVersionFits(int64 expected, int64 version);
pg_noreturn extern void AppendReportConflict(const StreamKey *key, int64 expected,
											 int64 version);

#endif							/* CQRS_ES_APPEND_H */
