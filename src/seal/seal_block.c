/*-------------------------------------------------------------------------
 * seal_block.c
 *	  The events of a seal, some hundred at a time.
 *
 * A block is made of the digests of its events, in the order of their positions.  Events that
 * share a position (in a log that was brought together) have no order there; they are taken
 * in that of their digests, and never come to lie in two blocks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "base/internal_query.h"
#include "base/role_switch.h"
#include "seal/seal.h"
#include "seal/seal_block.h"

/* blocks that are read at once */
#define PORTION_BLOCKS	500

struct SealBlockSum
{
	Sha256Stream *stream;
	int64		events;
	int64		position;		/* of the events that wait for others to share it */
	int			nwaiting;
	int			max_waiting;
	Sha256Digest *waiting;
};

static void add_waiting(SealBlockSum *sum);
static int	compare_digests(const void *a, const void *b);

/* palloc'd; to be ended by SealBlockSumEnd, but for errors. */
SealBlockSum *
SealBlockSumBegin(void)
{
	SealBlockSum *sum = palloc0(sizeof(SealBlockSum));

	sum->stream = Sha256Open();
	sum->max_waiting = 8;
	sum->waiting = palloc(sum->max_waiting * sizeof(Sha256Digest));
	return sum;
}

/* Begin a block. */
void
SealBlockStart(SealBlockSum *sum)
{
	static const char form[] = "block";

	Sha256Start(sum->stream);
	Sha256Add(sum->stream, form, sizeof(form));
	sum->events = 0;
	sum->nwaiting = 0;
}

/* The next event, at the position of the one before or above it. */
void
SealBlockAdd(SealBlockSum *sum, int64 position, const Sha256Digest *event)
{
	if (sum->nwaiting > 0 && sum->position != position)
		add_waiting(sum);
	if (sum->nwaiting == sum->max_waiting)
	{
		sum->max_waiting *= 2;
		sum->waiting = repalloc(sum->waiting, sum->max_waiting * sizeof(Sha256Digest));
	}
	sum->waiting[sum->nwaiting++] = *event;
	sum->position = position;
	sum->events++;
}

/* How many events it has, and its digest. */
void
SealBlockFinish(SealBlockSum *sum, SealBlock *block)
{
	add_waiting(sum);
	block->events = sum->events;
	Sha256Finish(sum->stream, &block->digest);
}

void
SealBlockSumEnd(SealBlockSum *sum)
{
	Sha256Close(sum->stream);
	pfree(sum->waiting);
	pfree(sum);
}

static void
add_waiting(SealBlockSum *sum)
{
	if (sum->nwaiting > 1)
		qsort(sum->waiting, sum->nwaiting, sizeof(Sha256Digest), compare_digests);
	Sha256Add(sum->stream, sum->waiting, sum->nwaiting * sizeof(Sha256Digest));
	sum->nwaiting = 0;
}

static int
compare_digests(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(Sha256Digest));
}

/* Add to the digest of all blocks what one is. */
void
SealBlockDescribe(Sha256Stream *blocks, const SealBlock *block)
{
	Sha256AddNumber(blocks, block->up_to_position);
	Sha256AddNumber(blocks, block->events);
	Sha256Add(blocks, &block->digest, sizeof(Sha256Digest));
}

void
SealBlockInsert(int64 seal, const SealBlock *block)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.seal_blocks (seal, up_to_position, events, digest) VALUES ($1, $2, $3, $4)",
		.nargs = 4,.argtypes = {INT8OID, INT8OID, INT8OID, BYTEAOID}
	};
	Datum		values[4];
	RoleSwitch	saved;

	SPI_connect();
	values[0] = Int64GetDatum(seal);
	values[1] = Int64GetDatum(block->up_to_position);
	values[2] = Int64GetDatum(block->events);
	values[3] = SealDigestDatum(&block->digest);
	saved = RoleSwitchToOwner("seal_blocks");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/*
 * The next blocks of a seal, behind the one that ends at a position, palloc'd; some at a time, and
 * none when there are no more.
 */
SealBlock *
SealBlocksRead(int64 seal, int64 after_position, Snapshot snapshot, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT up_to_position, events, digest FROM cqrs_es.seal_blocks"
		" WHERE seal OPERATOR(pg_catalog.=) $1 AND up_to_position OPERATOR(pg_catalog.>) $2"
		" ORDER BY up_to_position LIMIT $3",
		.nargs = 3,.argtypes = {INT8OID, INT8OID, INT4OID}
	};
	Datum		values[3] = {Int64GetDatum(seal), Int64GetDatum(after_position), Int32GetDatum(PORTION_BLOCKS)};
	MemoryContext caller = CurrentMemoryContext;
	SealBlock  *blocks;
	RoleSwitch	saved;
	int			i;

	SPI_connect();
	saved = RoleSwitchToOwner("seal_blocks");
	*n = (int) InternalQueryRead(&query, values, NULL, snapshot);
	MemoryContextSwitchTo(caller);
	blocks = palloc(Max(*n, 1) * sizeof(SealBlock));
	for (i = 0; i < *n; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		blocks[i].up_to_position = DatumGetInt64(InternalQueryDatum(&row, "up_to_position", NULL));
		blocks[i].events = DatumGetInt64(InternalQueryDatum(&row, "events", NULL));
		(void) SealDigestColumn(&row, "digest", &blocks[i].digest);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return blocks;
}
