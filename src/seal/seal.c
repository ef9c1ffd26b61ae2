/*-------------------------------------------------------------------------
 * seal.c
 *	  A seal: its row, and its digest.
 *
 * A seal says what was in the log between two positions, as one digest that also covers the
 * seal before it.  Who has put that digest where those who may change the database
 * cannot, can prove of every event up to there that it is what it was.
 *
 *	digest		of the row (but for itself), and of its blocks
 *	block		of 256 events or some more, and the positions up to the next: so trouble is
 *				told to be in a range of so many, and an event that comes in between is in one
 *	event		of its columns (event_digest.c)
 *
 * The blocks of a seal join each other from its first position to its last, and the seals of a node
 * likewise.  So there is no place below the last seal where an event could be put
 * unnoticed.  A seal covers the events of one node, those that are known to be settled
 * there; its number has the node in it, as a position has.
 *
 * Who makes seals: sealing.c.  Who compares: verify_seals.c.  How events may change all the
 * same: event_change.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/role_switch.h"
#include "log/position.h"
#include "seal/seal.h"

#define SEAL_COLUMNS \
	"seal, after_position, up_to_position, events, changes, changes_digest, sealed_at, sealed_by," \
	" previous_digest, digest"

static bool read_seal(InternalQuery *query, int64 from, int64 to, Snapshot snapshot, Seal *seal);

/* The last seal of a node, its text palloc'd; false when there is none. */
bool
SealFindNewest(int64 node, Snapshot snapshot, Seal *seal)
{
	static InternalQuery query = {
		.sql = "SELECT " SEAL_COLUMNS " FROM cqrs_es.seals WHERE seal OPERATOR(pg_catalog.>=) $1"
		" AND seal OPERATOR(pg_catalog.<=) $2 ORDER BY seal DESC LIMIT 1",
		.nargs = 2,.argtypes = {INT8OID, INT8OID}
	};

	return read_seal(&query, SealFirstNumber(node), SealLastNumber(node), snapshot, seal);
}

/* The first whose number is between the two, both inclusive; likewise. */
bool
SealFind(int64 from, int64 to, Snapshot snapshot, Seal *seal)
{
	static InternalQuery query = {
		.sql = "SELECT " SEAL_COLUMNS " FROM cqrs_es.seals WHERE seal OPERATOR(pg_catalog.>=) $1"
		" AND seal OPERATOR(pg_catalog.<=) $2 ORDER BY seal LIMIT 1",
		.nargs = 2,.argtypes = {INT8OID, INT8OID}
	};

	return read_seal(&query, from, to, snapshot, seal);
}

static bool
read_seal(InternalQuery *query, int64 from, int64 to, Snapshot snapshot, Seal *seal)
{
	Datum		values[2] = {Int64GetDatum(from), Int64GetDatum(to)};
	MemoryContext caller = CurrentMemoryContext;
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchToOwner("seals");
	found = InternalQueryRead(query, values, NULL, snapshot) > 0;
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);

		MemoryContextSwitchTo(caller);
		seal->number = DatumGetInt64(InternalQueryDatum(&row, "seal", NULL));
		seal->after_position = DatumGetInt64(InternalQueryDatum(&row, "after_position", NULL));
		seal->up_to_position = DatumGetInt64(InternalQueryDatum(&row, "up_to_position", NULL));
		seal->events = DatumGetInt64(InternalQueryDatum(&row, "events", NULL));
		seal->changes = DatumGetInt64(InternalQueryDatum(&row, "changes", NULL));
		(void) SealDigestColumn(&row, "changes_digest", &seal->changes_digest);
		seal->sealed_at = DatumGetTimestampTz(InternalQueryDatum(&row, "sealed_at", NULL));
		seal->sealed_by = InternalQueryTextCopy(&row, "sealed_by");
		(void) SealDigestColumn(&row, "previous_digest", &seal->previous);
		(void) SealDigestColumn(&row, "digest", &seal->digest);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return found;
}

void
SealInsert(const Seal *seal)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.seals (" SEAL_COLUMNS ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		.nargs = 10,.argtypes = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, BYTEAOID, TIMESTAMPTZOID,
		TEXTOID, BYTEAOID, BYTEAOID}
	};
	Datum		values[10] = {
		Int64GetDatum(seal->number), Int64GetDatum(seal->after_position),
		Int64GetDatum(seal->up_to_position), Int64GetDatum(seal->events),
		Int64GetDatum(seal->changes), SealDigestDatum(&seal->changes_digest),
		TimestampTzGetDatum(seal->sealed_at), PointerGetDatum(seal->sealed_by),
		SealDigestDatum(&seal->previous), SealDigestDatum(&seal->digest)
	};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("seals");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/* What the digest of a seal must be, by all else in it and the digest of its blocks. */
void
SealDigest(const Seal *seal, const Sha256Digest *blocks, Sha256Digest *digest)
{
	static const char form[] = "cqrs_es seal 1";
	Sha256Stream *stream = Sha256Open();

	Sha256Start(stream);
	Sha256Add(stream, form, sizeof(form));
	Sha256AddNumber(stream, seal->number);
	Sha256AddNumber(stream, seal->after_position);
	Sha256AddNumber(stream, seal->up_to_position);
	Sha256AddNumber(stream, seal->events);
	Sha256AddNumber(stream, seal->changes);
	Sha256Add(stream, &seal->changes_digest, sizeof(Sha256Digest));
	Sha256AddNumber(stream, seal->sealed_at);
	Sha256AddSized(stream, VARDATA_ANY(seal->sealed_by), VARSIZE_ANY_EXHDR(seal->sealed_by));
	Sha256Add(stream, &seal->previous, sizeof(Sha256Digest));
	Sha256Add(stream, blocks, sizeof(Sha256Digest));
	Sha256Finish(stream, digest);
	Sha256Close(stream);
}

/* As a value of type bytea, palloc'd. */
Datum
SealDigestDatum(const Sha256Digest *digest)
{
	bytea	   *value = palloc(VARHDRSZ + sizeof(Sha256Digest));

	SET_VARSIZE(value, VARHDRSZ + sizeof(Sha256Digest));
	memcpy(VARDATA(value), digest, sizeof(Sha256Digest));
	return PointerGetDatum(value);
}

/*
 * The digest in a column; false, and zeros, where there is none, or, by somebody's doing, something
 * else.
 */
bool
SealDigestColumn(const QueryRow *row, const char *column, Sha256Digest *digest)
{
	bool		isnull;
	Datum		value = InternalQueryDatum(row, column, &isnull);
	bytea	   *bytes = isnull ? NULL : DatumGetByteaPP(value);

	memset(digest, 0, sizeof(Sha256Digest));
	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != sizeof(Sha256Digest))
		return false;
	memcpy(digest, VARDATA_ANY(bytes), sizeof(Sha256Digest));
	return true;
}

bool
SealDigestsEqual(const Sha256Digest *a, const Sha256Digest *b)
{
	return memcmp(a, b, sizeof(Sha256Digest)) == 0;
}

/* The numbers that seals of a node have. */
int64
SealFirstNumber(int64 node)
{
	return (node << POSITION_NUMBER_BITS) + 1;
}

int64
SealLastNumber(int64 node)
{
	return (node << POSITION_NUMBER_BITS) + POSITION_MAX_NUMBER;
}
