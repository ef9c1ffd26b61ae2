/*-------------------------------------------------------------------------
 * id_search.h
 *	  Looking for ids among the events of a stream.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ID_SEARCH_H
#define CQRS_ES_ID_SEARCH_H

#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "base/stream_key.h"
#include "log/events.h"

struct IdSearch;

/* Ids of one kind: those of events, of commands. */
typedef struct IdKind
{
	bool		of_events;		/* is it the column event_id? */

	/* a hash of the event's id; false when it has none */
	bool		(*hash) (const Event *event, uint64 *hash);
	bool		(*is_wanted) (const Event *event, const struct IdSearch *search);
} IdKind;

/* What is looked for, and where. */
typedef struct IdSearch
{
	const IdKind *kind;
	const StreamKey *key;
	pg_uuid_t **ids;
	int			nids;
	const uint64 *hashes;		/* of the ids, as the kind makes them */
	const void *of;				/* for the kind */
} IdSearch;

extern void IdSearchInit(void);
extern int	IdSearchRun(void);
extern int64 IdSearchLast(const IdSearch *search, int64 *searched_to, int64 after,
						  Snapshot snapshot);

#endif							/* CQRS_ES_ID_SEARCH_H */
