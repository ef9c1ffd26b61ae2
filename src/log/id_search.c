/*-------------------------------------------------------------------------
 * id_search.c
 *	  Looking for ids among the events of a stream: is what is to be appended, or the
 *	  command that is to be decided, in it already?
 *
 * Most ids are new, so the cost of a look is that of finding nothing, and it must not grow
 * with the stream.  So a look goes back from the stream's end for cqrs_es.idempotency_window, no
 * further: until cqrs_es.retry_window events in a row are older than that.  In a row, since
 * times rise within a stream but for those that were brought along: one event that is dated
 * back does not end the look, only so many do.  A stream that has no more than so many is
 * searched from its end to its beginning.
 *
 * Where the owner of the log has made an index with event_id in it, ids of events are looked
 * up there, and nothing is too old.
 *
 * A stream may get many events within the window.  What a session has read of such a one it
 * remembers: of each event a hash of its id.  The next time it reads only what came since, and
 * when none of the hashes is that of a wanted id, none of the ids is there.  When one is, the events
 * are read as if nothing were remembered; so what is remembered never says yes.
 *
 * That it says no rightly takes that the events it speaks of are still those that
 * were read.  It is remembered of events without a hole between them, and the last is known
 * by sequence, position and id.  While that one is in the stream, so are all before it, for nobody
 * writes behind what is neither committed nor his own, positions are not drawn twice, and
 * in between there is no room.  When it is not (it was ours, and we rolled back; the log is
 * another one; it is not in this transaction's snapshot), all of it is forgotten.  Events that
 * are remembered and are not there any more, or which row security hides, do no harm.  The
 * window moves forward, so what was read reaches back far enough, while the settings
 * are what they were.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/setting.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/id_search.h"

/* a stream of which more was read than that is worth remembering; of so many at most */
#define REMEMBER_FROM	128
#define MAX_REMEMBERED	64

/* A set of hashes: 0 is a free slot.  Doubles when it is half full. */
typedef struct HashSet
{
	uint64	   *slots;
	uint32		nslots;			/* a power of 2 */
	uint32		n;
} HashSet;

/* What was read of a stream. */
typedef struct Remembered
{
	const IdKind *kind;			/* NULL: nothing */
	uint32		key_hash;
	StreamKey	key;
	MemoryContext memory;		/* of all that it points to */
	HashSet		ids;
	uint64		used_at;		/* the greater, the later */

	/* under these settings */
	int			window;
	int			run;

	/* the last event */
	int64		sequence;
	int64		position;
	pg_uuid_t	event_id;
} Remembered;

/* A look back from the end of a stream. */
typedef struct LookBack
{
	TimestampTz oldest;			/* the window begins here */
	int			nolder;			/* so many events in a row were older */
	bool		has_hole;
	int			nread;			/* so many events were read */
	int			nfirst;			/* the hashes of the first of them */
	uint64		first[REMEMBER_FROM];
	Remembered	read;
} LookBack;

static int	cqrs_es_idempotency_window = 7 * SECS_PER_DAY;
static int	cqrs_es_retry_window = 100;

static Remembered remembered[MAX_REMEMBERED];
static uint64 uses = 0;

static int64 last_by_index(const IdSearch *search, int64 after, Snapshot snapshot);
static int64 last_since(const IdSearch *search, int64 *after, Snapshot snapshot);
static int64 last_within_window(const IdSearch *search, int64 *last, Snapshot snapshot);
static bool is_beyond(LookBack *look, const Event *event);
static void note_event(LookBack *look, const Event *event, int64 next_sequence);
static Remembered *recall(const IdSearch *search);
static bool surely_has_none(Remembered *known, const IdSearch *search, int64 *last,
							Snapshot snapshot);
static bool is_last(const Remembered *known, const Event *event);
static void set_last(Remembered *known, const Event *event);
static void remember(const IdSearch *search, Remembered *read);
static void make_room(const Remembered *keep);
static Remembered *least_used(const Remembered *but);
static void forget(Remembered *known);
static uint32 key_hash(const StreamKey *key);
static text *copy_text(MemoryContext memory, const text *value);
static void set_init(HashSet *set, MemoryContext memory);
static bool set_has(const HashSet *set, uint64 hash);
static void set_add(HashSet *set, uint64 hash);
static Size set_bytes(const HashSet *set);
static Size memory_limit(void);

void
IdSearchInit(void)
{
	SettingDefineInt("cqrs_es.idempotency_window",
					 "How long ids of events and commands are recognized when they are sent again.",
					 "-1 for as long as the stream is there.",
					 &cqrs_es_idempotency_window, 7 * SECS_PER_DAY, -1, INT_MAX,
					 PGC_USERSET, GUC_UNIT_S);
	SettingDefineInt("cqrs_es.retry_window",
					 "How many of a stream's events are searched for ids whatever their age; no others where an append's expected version fits.",
					 "0 searches none for such an append.",
					 &cqrs_es_retry_window, 100, 0, INT_MAX,
					 PGC_USERSET, 0);
}

/* How many events are searched for ids whatever their age. */
int
IdSearchRun(void)
{
	return cqrs_es_retry_window;
}

/*
 * Where the stream has one of the ids for the last time: the sequence, or 0.  It is known
 * that it has none up to *searched_to; afterwards that is its end, unless an index gave the
 * answer.  Without an index nothing up to `after` is looked at either (0: the window
 * counts).  Above READ COMMITTED the snapshot is the transaction's; in SERIALIZABLE the end of the
 * stream has then been read, unless by an index.
 *
 * The caller may read the log.
 */
int64
IdSearchLast(const IdSearch *search, int64 *searched_to, int64 after, Snapshot snapshot)
{
	Remembered *known;
	int64		last = 0;
	int64		found;

	if (search->kind->of_events && OidIsValid(EventsTableGet().id_index))
		return last_by_index(search, *searched_to, snapshot);
	*searched_to = Max(*searched_to, after);
	if (*searched_to > 0)
		return last_since(search, searched_to, snapshot);

	known = recall(search);
	if (known && surely_has_none(known, search, &last, snapshot))
		found = 0;
	else
		found = last_within_window(search, &last, snapshot);
	*searched_to = last;
	return found;
}

/*-------------------------------------------------------------------------
 * reading
 *-------------------------------------------------------------------------
 */

static int64
last_by_index(const IdSearch *search, int64 after, Snapshot snapshot)
{
	int64		found = 0;
	int			i;

	for (i = 0; i < search->nids; i++)
	{
		EventScan  *scan = EventScanId(search->key, search->ids[i], snapshot);
		Event		event;

		while (EventScanNext(scan, &event))
		{
			StreamKey	key;

			EventKey(&event, &key);
			if (EventSequence(&event) > Max(after, found) && StreamKeyEqual(&key, search->key))
				found = EventSequence(&event);
		}
		EventScanEnd(scan);
	}
	return found;
}

/*
 * Behind a given event, to the end.  A part of a stream is read forward, since from its end the
 * index would look at much more than that.
 */
static int64
last_since(const IdSearch *search, int64 *after, Snapshot snapshot)
{
	EventScan  *scan = EventScanStream(search->key, *after + 1, ForwardScanDirection, snapshot);
	int64		found = 0;
	Event		event;

	while (EventScanNext(scan, &event))
	{
		*after = EventSequence(&event);
		if (search->kind->is_wanted(&event, search))
			found = EventSequence(&event);
	}
	EventScanEnd(scan);
	return found;
}

/* From the end back through the window; *last is the end. */
static int64
last_within_window(const IdSearch *search, int64 *last, Snapshot snapshot)
{
	EventScan  *scan = EventScanStream(search->key, PG_INT64_MAX, BackwardScanDirection, snapshot);
	LookBack	look = {.read = {.kind = search->kind}};
	int64		sequence = 0;	/* of the event before */
	bool		found = false;
	Event		event;

	look.oldest = cqrs_es_idempotency_window < 0 ? DT_NOBEGIN :
		GetCurrentTimestamp() - cqrs_es_idempotency_window * USECS_PER_SEC;
	while (!found && EventScanNext(scan, &event))
	{
		if (is_beyond(&look, &event))
			break;
		note_event(&look, &event, sequence);
		sequence = EventSequence(&event);
		*last = Max(*last, sequence);
		found = search->kind->is_wanted(&event, search);
	}
	EventScanEnd(scan);
	if (look.read.memory != NULL)
	{
		if (found || look.has_hole || set_bytes(&look.read.ids) > memory_limit())
			MemoryContextDelete(look.read.memory);
		else
			remember(search, &look.read);
	}
	return found ? sequence : 0;
}

/* Have so many events in a row been older than the window that this need not be looked at? */
static bool
is_beyond(LookBack *look, const Event *event)
{
	if (DatumGetTimestampTz(event->values[EVENT_CREATED_AT]) < look->oldest)
		look->nolder++;
	else
		look->nolder = 0;
	return look->nolder > cqrs_es_retry_window;
}

/* To be remembered, if the look goes far. */
static void
note_event(LookBack *look, const Event *event, int64 next_sequence)
{
	Remembered *read = &look->read;
	uint64		hash;
	bool		has_id;
	int			i;

	if (next_sequence == 0)
		set_last(read, event);
	else if (EventSequence(event) != next_sequence - 1)
		look->has_hole = true;
	look->nread++;
	if (look->has_hole || set_bytes(&read->ids) > memory_limit())
		return;
	has_id = read->kind->hash(event, &hash);
	if (look->nread <= REMEMBER_FROM)
	{
		if (has_id)
			look->first[look->nfirst++] = hash;
		return;
	}
	if (read->memory == NULL)
	{
		read->memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es ids of a stream",
											 ALLOCSET_SMALL_SIZES);
		set_init(&read->ids, read->memory);
		for (i = 0; i < look->nfirst; i++)
			set_add(&read->ids, look->first[i]);
	}
	if (has_id)
		set_add(&read->ids, hash);
}

/*-------------------------------------------------------------------------
 * remembering
 *-------------------------------------------------------------------------
 */

/* What is remembered of the stream; NULL: nothing that holds today. */
static Remembered *
recall(const IdSearch *search)
{
	uint32		hash = key_hash(search->key);
	int			i;

	for (i = 0; i < MAX_REMEMBERED; i++)
	{
		Remembered *known = &remembered[i];

		if (known->kind != search->kind || known->key_hash != hash ||
			!StreamKeyEqual(&known->key, search->key))
			continue;
		if (known->window != cqrs_es_idempotency_window || known->run != cqrs_es_retry_window)
		{
			forget(known);
			break;
		}
		known->used_at = ++uses;
		return known;
	}
	return NULL;
}

/* Read what came since, and say that no id that is wanted can be there; false is no answer. */
static bool
surely_has_none(Remembered *known, const IdSearch *search, int64 *last, Snapshot snapshot)
{
	EventScan  *scan = EventScanStream(search->key, known->sequence, ForwardScanDirection, snapshot);
	Event		event;
	uint64		used_at = known->used_at;
	bool		holds = EventScanNext(scan, &event) && known->used_at == used_at && is_last(known, &event);
	int			i;

	*last = known->sequence;
	while (holds && EventScanNext(scan, &event))
	{
		uint64		hash;

		/* policies of users may run anything, which may have looked here, too */
		holds = known->used_at == used_at && EventSequence(&event) == known->sequence + 1;
		if (!holds)
			break;
		/* its id first: an error in between does no harm */
		if (known->kind->hash(&event, &hash))
			set_add(&known->ids, hash);
		set_last(known, &event);
		*last = known->sequence;
	}
	EventScanEnd(scan);
	if (known->used_at != used_at)
		holds = false;
	else if (holds)
		make_room(known);
	else
		forget(known);
	if (!holds || known->kind == NULL)
	{
		*last = 0;
		return false;
	}
	for (i = 0; i < search->nids; i++)
		if (set_has(&known->ids, search->hashes[i]))
			return false;
	return true;
}

static bool
is_last(const Remembered *known, const Event *event)
{
	return EventSequence(event) == known->sequence &&
		EventGlobalPosition(event) == known->position &&
		memcmp(DatumGetUUIDP(event->values[EVENT_EVENT_ID]), &known->event_id, UUID_LEN) == 0;
}

static void
set_last(Remembered *known, const Event *event)
{
	known->sequence = EventSequence(event);
	known->position = EventGlobalPosition(event);
	known->event_id = *DatumGetUUIDP(event->values[EVENT_EVENT_ID]);
}

/* Keep what was read, in place of what was known of the stream or of the one used least. */
static void
remember(const IdSearch *search, Remembered *read)
{
	Remembered *place = recall(search);

	read->window = cqrs_es_idempotency_window;
	read->run = cqrs_es_retry_window;
	read->key_hash = key_hash(search->key);
	read->key.aggregate_type = copy_text(read->memory, search->key->aggregate_type);
	read->key.aggregate_id = copy_text(read->memory, search->key->aggregate_id);
	read->key.tenant_id = copy_text(read->memory, search->key->tenant_id);
	read->used_at = ++uses;
	MemoryContextSetParent(read->memory, CacheMemoryContext);

	if (place == NULL)
		place = least_used(NULL);
	forget(place);
	*place = *read;
	make_room(place);
}

/* Forget others, those used least first, and in the end this as well, as work_mem says. */
static void
make_room(const Remembered *keep)
{
	for (;;)
	{
		Size		bytes = 0;
		Remembered *victim;
		int			i;

		for (i = 0; i < MAX_REMEMBERED; i++)
			bytes += remembered[i].kind ? set_bytes(&remembered[i].ids) : 0;
		if (bytes <= memory_limit())
			return;
		victim = least_used(keep);
		forget(victim->kind ? victim : unconstify(Remembered *, keep));
	}
}

/* An empty place, if there is one; else what was not used for the longest time. */
static Remembered *
least_used(const Remembered *but)
{
	Remembered *found = NULL;
	int			i;

	for (i = 0; i < MAX_REMEMBERED; i++)
	{
		Remembered *known = &remembered[i];

		if (known == but)
			continue;
		if (but == NULL && known->kind == NULL)
			return known;
		if (found == NULL || found->kind == NULL ||
			(known->kind != NULL && known->used_at < found->used_at))
			found = known;
	}
	return found;
}

static void
forget(Remembered *known)
{
	MemoryContext memory = known->memory;

	memset(known, 0, sizeof(Remembered));
	if (memory)
		MemoryContextDelete(memory);
}

static uint32
key_hash(const StreamKey *key)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(key->aggregate_id),
					  VARSIZE_ANY_EXHDR(key->aggregate_id));
}

static text *
copy_text(MemoryContext memory, const text *value)
{
	text	   *copy = MemoryContextAlloc(memory, VARSIZE_ANY(value));

	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

/*-------------------------------------------------------------------------
 * the set
 *-------------------------------------------------------------------------
 */

static void
set_init(HashSet *set, MemoryContext memory)
{
	set->n = 0;
	set->nslots = 512;
	set->slots = MemoryContextAllocZero(memory, set->nslots * sizeof(uint64));
}

static bool
set_has(const HashSet *set, uint64 hash)
{
	uint32		i;

	hash = Max(hash, 1);
	for (i = hash & (set->nslots - 1); set->slots[i] != 0; i = (i + 1) & (set->nslots - 1))
		if (set->slots[i] == hash)
			return true;
	return false;
}

static void
set_add(HashSet *set, uint64 hash)
{
	uint32		i;

	hash = Max(hash, 1);
	if (2 * set->n >= set->nslots)
	{
		HashSet		larger = {.nslots = 2 * set->nslots};

		larger.slots = MemoryContextAllocExtended(GetMemoryChunkContext(set->slots),
												  larger.nslots * sizeof(uint64),
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		for (i = 0; i < set->nslots; i++)
			if (set->slots[i] != 0)
				set_add(&larger, set->slots[i]);
		pfree(set->slots);
		*set = larger;
	}
	for (i = hash & (set->nslots - 1); set->slots[i] != 0; i = (i + 1) & (set->nslots - 1))
		if (set->slots[i] == hash)
			return;
	set->slots[i] = hash;
	set->n++;
}

static Size
set_bytes(const HashSet *set)
{
	return set->nslots * sizeof(uint64);
}

/* All that is remembered may take. */
static Size
memory_limit(void)
{
	return work_mem * (Size) 1024;
}
