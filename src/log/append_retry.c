/*-------------------------------------------------------------------------
 * append_retry.c
 *	  Is it the same append again?
 *
 * A client that got no answer sends the append again.  When the events carry
 * explicit ids and the stream holds just these ids in this order, it is the same
 * append again: the first result is returned and nothing is written.
 *
 * Where to look depends on the expected version.  With one that is not the
 * stream's any more the place is known, however long ago that was.  With "any" (and "it
 * exists") the stream is searched from its end for as long as a retry may take
 * (id_search.c).  With the version that the stream is at (a client that loads again
 * before it sends again) it is searched, too, but no further than
 * cqrs_es.retry_window events: most appends are no retries, and all pay for the
 * look.  Appends without ids look at nothing.  Where an index has the ids, all of them
 * are found.
 *
 * The position behind which a condition asks (append_to_streams) says nothing of where to look:
 * who reads again before sending again names that of the very events that are looked for.
 *
 * What makes two events the same beside the id is type, version and payload;
 * metadata may differ (a retry has its own transaction context).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sdir.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/stream_key.h"
#include "base/text.h"
#include "log/append_retry.h"
#include "log/event_id.h"
#include "log/event_scan.h"
#include "log/id_search.h"
#include "log/personal_data.h"

static int	compare_ids(const void *a, const void *b);
static int64 last_use(AppendRetry *retry, int64 after, pg_uuid_t *found_id);
static pg_uuid_t *id_at(const StreamKey *key, int64 sequence, Snapshot snapshot);
static bool hash_id(const Event *event, uint64 *hash);
static bool is_wanted(const Event *event, const IdSearch *search);
static bool same_append_at(const AppendRequest *append, int64 sequence, AppendResult *result);
pg_noreturn static void report_id_conflict(const AppendRequest *append, const pg_uuid_t *id,
										   int64 sequence);

static const IdKind event_ids = {.of_events = true,.hash = hash_id,.is_wanted = is_wanted};

/* Begin with a request that stays where it is.  Raises 22023 when an id stands in it twice. */
void
AppendRetryBegin(AppendRetry *retry, const AppendRequest *append)
{
	pg_uuid_t **ids = palloc(sizeof(pg_uuid_t *) * append->nevents);
	int			n = 0;
	int			i;

	for (i = 0; i < append->nevents; i++)
		if (append->has_id[i])
			ids[n++] = DatumGetUUIDP(append->events[i].values[EVENT_EVENT_ID]);
	if (n > 1)
		qsort(ids, n, sizeof(pg_uuid_t *), compare_ids);
	for (i = 1; i < n; i++)
		if (compare_ids(&ids[i - 1], &ids[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event id %s stands twice in the batch",
							EventIdText(ids[i]))));
	retry->append = append;
	retry->ids = ids;
	retry->hashes = palloc(sizeof(uint64) * n);
	for (i = 0; i < n; i++)
		retry->hashes[i] = hash_bytes_extended(ids[i]->data, UUID_LEN, 0);
	retry->nids = n;
	retry->searched_to = 0;
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(*(pg_uuid_t *const *) a, *(pg_uuid_t *const *) b, sizeof(pg_uuid_t));
}

/*
 * Does the stream, which ends at `tip`, already hold just these events?  Then the
 * result of the append that wrote them.  (An append that does not give all of its
 * events ids cannot be recognized, but must not use an id again.)  Looks where they
 * would be: behind the expected version when that check fails; else from the
 * stream's end back through the window, or down to where an earlier call has looked, and no
 * further than cqrs_es.retry_window events when the expected version is the stream's.
 *
 * The caller may read the log.  Raises QE002 when an id stands there with other
 * content.
 */
bool
AppendRetryFind(AppendRetry *retry, const StreamTip *tip, AppendResult *result)
{
	const AppendRequest *append = retry->append;
	int64		after = 0;
	int64		found = 0;
	pg_uuid_t	found_id;

	if (retry->nids == 0)
		return false;
	if (append->expected_version >= 0 && tip->version != append->expected_version)
		return retry->nids == append->nevents && tip->version > append->expected_version &&
			same_append_at(append, append->expected_version + 1, result);
	if (append->expected_version >= 0)
		after = Max(0, tip->version - IdSearchRun());
	if (tip->version > retry->searched_to &&
		(append->expected_version < 0 || IdSearchRun() > 0))
		found = last_use(retry, after, &found_id);
	retry->searched_to = tip->version;
	if (found == 0)
		return false;

	/* that must be the last event of the batch */
	found -= append->nevents - 1;
	if (retry->nids < append->nevents || found < 1 || !same_append_at(append, found, result))
		report_id_conflict(append, &found_id, found + append->nevents - 1);
	return true;
}

/*
 * Some streams of an append hold its events, the first one this; others do not, so it is not
 * the same append again: QE002.
 */
void
AppendRetryReportPart(const AppendRetry *retry, const AppendResult *found)
{
	const AppendRequest *append = retry->append;

	report_id_conflict(append,
					   DatumGetUUIDP(append->events[append->nevents - 1].values[EVENT_EVENT_ID]),
					   found->version);
}

/*
 * Where the stream holds one of the ids for the last time, behind what has been searched, and
 * behind `after` where it is not searched by an index: its sequence, or 0.
 */
static int64
last_use(AppendRetry *retry, int64 after, pg_uuid_t *found_id)
{
	IdSearch	search = {.kind = &event_ids,.key = &retry->append->key,
		.ids = retry->ids,.nids = retry->nids,.hashes = retry->hashes};
	Snapshot	snapshot = RegisterSnapshot(InternalQueryFreshSnapshot());
	int64		searched_to = retry->searched_to;
	int64		found = IdSearchLast(&search, &searched_to, after, snapshot);

	if (found > 0)
		*found_id = *id_at(&retry->append->key, found, snapshot);
	UnregisterSnapshot(snapshot);
	return found;
}

/* The id of an event that is there, palloc'd. */
static pg_uuid_t *
id_at(const StreamKey *key, int64 sequence, Snapshot snapshot)
{
	EventScan  *scan = EventScanStream(key, sequence, ForwardScanDirection, snapshot);
	pg_uuid_t  *id = palloc0(sizeof(pg_uuid_t));
	Event		event;

	if (EventScanNext(scan, &event))
		*id = *DatumGetUUIDP(event.values[EVENT_EVENT_ID]);
	EventScanEnd(scan);
	return id;
}

static bool
hash_id(const Event *event, uint64 *hash)
{
	*hash = hash_bytes_extended(DatumGetUUIDP(event->values[EVENT_EVENT_ID])->data, UUID_LEN, 0);
	return true;
}

static bool
is_wanted(const Event *event, const IdSearch *search)
{
	pg_uuid_t  *id = DatumGetUUIDP(event->values[EVENT_EVENT_ID]);

	return bsearch(&id, search->ids, search->nids, sizeof(pg_uuid_t *), compare_ids) != NULL;
}

/*
 * Do the events from `sequence` on have just our ids?  False when not even
 * the first has; QE002 when only some have, or with other content.
 */
static bool
same_append_at(const AppendRequest *append, int64 sequence, AppendResult *result)
{
	Snapshot	snapshot = RegisterSnapshot(InternalQueryFreshSnapshot());
	EventScan  *scan = EventScanStream(&append->key, sequence, ForwardScanDirection, snapshot);
	Event		event;
	int			i = 0;

	while (i < append->nevents && EventScanNext(scan, &event))
	{
		const Event *ours = &append->events[i];
		pg_uuid_t  *id = DatumGetUUIDP(ours->values[EVENT_EVENT_ID]);
		Jsonb	   *payload;

		if (memcmp(DatumGetUUIDP(event.values[EVENT_EVENT_ID]), id, sizeof(pg_uuid_t)) != 0)
			break;
		PersonalDataOpen(&event);
		payload = DatumGetJsonbP(event.values[EVENT_PAYLOAD]);
		if (!TextEqual(EventText(&event, EVENT_EVENT_TYPE), EventText(ours, EVENT_EVENT_TYPE)) ||
			!TextEqual(EventText(&event, EVENT_EVENT_VERSION), EventText(ours, EVENT_EVENT_VERSION)) ||
			compareJsonbContainers(&payload->root,
								   &DatumGetJsonbP(ours->values[EVENT_PAYLOAD])->root) != 0)
			report_id_conflict(append, id, EventSequence(&event));
		result->version = EventSequence(&event);
		result->global_position = EventGlobalPosition(&event);
		result->was_there = true;
		i++;
	}
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	if (i > 0 && i < append->nevents)
		report_id_conflict(append,
						   DatumGetUUIDP(append->events[i - 1].values[EVENT_EVENT_ID]),
						   sequence + i - 1);
	return i == append->nevents;
}

static void
report_id_conflict(const AppendRequest *append, const pg_uuid_t *id, int64 sequence)
{
	ereport(ERROR,
			(errcode(ERRCODE_EVENT_ID_CONFLICT),
			 errmsg("event id %s is already used in stream \"%s\"",
					EventIdText(id), StreamKeyName(&append->key)),
			 errdetail("Sequence %lld of the stream has this id, and the append is not a repetition of the one that wrote it.",
					   (long long) sequence),
			 errhint("A retry must repeat the same events in the same order; a new event needs a new id.")));
}
