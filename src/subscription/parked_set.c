/*-------------------------------------------------------------------------
 * parked_set.c
 *	  The parked streams of a share, to be asked about many streams.
 *
 * They are read when the first is asked about, if the subscription has not too many; else
 * each stream is looked up when it is asked about, and remembered.  With the share locked none is parked meanwhile.
 * Called between ShareEnter and ShareLeave.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "subscription/parked_set.h"
#include "subscription/parked_stream.h"

/* with more than this it is asked about each stream when it comes */
#define MAX_LOADED 1000

typedef struct SetStream
{
	StreamKey	key;
	int64		sequence;		/* where it is parked; 0: it is not */
	struct SetStream *next;		/* with the same hash */
} SetStream;

typedef struct SetEntry
{
	uint64		hash;
	SetStream  *first;
} SetEntry;

struct ParkedSet
{
	const Subscription *subscription;
	bool		is_loaded;
	bool		is_complete;	/* what is not in it is not parked */
	HTAB	   *entries;		/* NULL: none is parked */
	MemoryContext memory;
};

static void load(ParkedSet *set);
static uint64 hash_key(const StreamKey *key);
static void set_add(ParkedSet *set, const StreamKey *key, int64 sequence);

/*
 * The streams of the subscription that are parked, in hand or not, in the current memory
 * context.
 */
ParkedSet *
ParkedSetMake(const Subscription *subscription)
{
	ParkedSet  *set = palloc0(sizeof(ParkedSet));

	set->subscription = subscription;
	set->memory = CurrentMemoryContext;
	return set;
}

/* Is an event of this sequence in a parked stream, at what it waits for or behind it? */
bool
ParkedSetHas(ParkedSet *set, const StreamKey *key, int64 sequence)
{
	uint64		hash;
	SetEntry   *entry;
	SetStream  *stream;
	ParkedStream *parked;

	if (!set->is_loaded)
		load(set);
	if (set->entries == NULL)
		return false;
	hash = hash_key(key);
	entry = hash_search(set->entries, &hash, HASH_FIND, NULL);
	for (stream = entry ? entry->first : NULL; stream != NULL; stream = stream->next)
		if (StreamKeyEqual(&stream->key, key))
			return stream->sequence != 0 && sequence >= stream->sequence;
	if (set->is_complete)
		return false;
	SPI_connect();
	parked = ParkedStreamFind(set->subscription, key);
	set_add(set, key, parked ? parked->sequence : 0);
	SPI_finish();
	return ParkedSetHas(set, key, sequence);
}

static void
load(ParkedSet *set)
{
	static InternalQuery query = {
		.sql = "SELECT aggregate_type, aggregate_id, tenant_id, sequence FROM cqrs_es.parked_streams"
		" WHERE subscription OPERATOR(pg_catalog.=) $1 LIMIT $2",
		.nargs = 2,.argtypes = {TEXTOID, INT4OID}
	};
	Datum		values[2] = {PointerGetDatum(set->subscription->name), Int32GetDatum(MAX_LOADED + 1)};
	int			n;
	int			i;

	SPI_connect();
	n = (int) ShareQuery(&query, values, NULL);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		StreamKey	key = StreamKeyOfRow(&row);

		set_add(set, &key, DatumGetInt64(InternalQueryDatum(&row, "sequence", NULL)));
	}
	SPI_finish();
	set->is_loaded = true;
	set->is_complete = n <= MAX_LOADED;
}

static void
set_add(ParkedSet *set, const StreamKey *key, int64 sequence)
{
	MemoryContext caller = MemoryContextSwitchTo(set->memory);
	uint64		hash = hash_key(key);
	SetStream  *stream = palloc(sizeof(SetStream));
	SetEntry   *entry;
	bool		found;

	if (set->entries == NULL)
	{
		HASHCTL		info = {
			.keysize = sizeof(uint64),.entrysize = sizeof(SetEntry),.hcxt = set->memory
		};

		set->entries = hash_create("cqrs_es parked streams", 64, &info,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(set->entries, &hash, HASH_ENTER, &found);
	stream->key.aggregate_type = DatumGetTextPCopy(PointerGetDatum(key->aggregate_type));
	stream->key.aggregate_id = DatumGetTextPCopy(PointerGetDatum(key->aggregate_id));
	stream->key.tenant_id = DatumGetTextPCopy(PointerGetDatum(key->tenant_id));
	stream->sequence = sequence;
	stream->next = found ? entry->first : NULL;
	entry->first = stream;
	MemoryContextSwitchTo(caller);
}

static uint64
hash_key(const StreamKey *key)
{
	uint64		hash;

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(key->tenant_id),
							   VARSIZE_ANY_EXHDR(key->tenant_id), 0);
	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(key->aggregate_type),
							   VARSIZE_ANY_EXHDR(key->aggregate_type), hash);
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(key->aggregate_id),
							   VARSIZE_ANY_EXHDR(key->aggregate_id), hash);
}
