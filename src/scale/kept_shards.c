/*-------------------------------------------------------------------------
 * kept_shards.c
 *	  Which streams are this server's, where there are several.
 *
 * Streams are dealt out over a number of shards, a power of two, by their hash
 * (stream_hash.c), and a server keeps some of these.  Whoever sends calls has a list of servers; when that
 * is in a wrong order, or of yesterday, a stream would be begun a second time
 * elsewhere, without a word.  So a server can be told what it keeps, and then refuses a call that was
 * routed here for another's stream (QE605).
 *
 * A call holds AccessShareLock on the table to its end, and keep_shards() takes the lock that
 * is in its way: when that returns, nobody is writing any more by what was said before.
 * So a shard can be moved: the old server gives it up, and what it has then is all there
 * will be.
 *
 * Who appends at the server itself is not asked.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/bitmapset.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "scale/kept_shards.h"
#include "scale/stream_hash.h"

/* a bitmap of them has 8 kB */
#define MAX_SHARDS 65536

typedef struct KeptShards
{
	RegistryEntry entry;
	int			count;			/* of shards, of which `shards` are here; 0: all streams
								 * are */
	Bitmapset  *shards;
} KeptShards;

static void load(void *entry, const text *key, MemoryContext memory);
static void check_shards(NullableDatum shards, int shard_count);

static RegistryCache kept = {
	.name = "cqrs_es kept shards",.entry_size = sizeof(KeptShards),.load = load,.table = "kept_shards"
};

PG_FUNCTION_INFO_V1(cqrs_es_keep_shards);

void
KeptShardsInit(void)
{
	RegistryRegister("kept_shards");
}

/* SQL: keep_shards(shards, shard_count) */
Datum
cqrs_es_keep_shards(PG_FUNCTION_ARGS)
{
	static InternalQuery drop = {.sql = "DELETE FROM cqrs_es.kept_shards"};
	static InternalQuery keep = {
		.sql = "INSERT INTO cqrs_es.kept_shards (shards, shard_count) VALUES ($1, $2)",
		.nargs = 2,.argtypes = {INT4ARRAYOID, INT4OID}
	};
	Datum		values[2] = {fcinfo->args[0].value, fcinfo->args[1].value};

	ReadOnlyPrevent(fcinfo);
	if (!PG_ARGISNULL(0))
	{
		if (PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("shard_count must not be null")));
		check_shards(fcinfo->args[0], PG_GETARG_INT32(1));
	}
	LockRelationOid(ExtensionRelid("kept_shards"), AccessExclusiveLock);
	(void) RegistryWrite(&drop, NULL, NULL);
	if (!PG_ARGISNULL(0))
		(void) RegistryWrite(&keep, values, NULL);
	PG_RETURN_VOID();
}

/* Numbers from 0 to below a power of two; 22023. */
static void
check_shards(NullableDatum shards, int shard_count)
{
	ArrayType  *array = DatumGetArrayTypeP(shards.value);
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	if (shard_count < 1 || shard_count > MAX_SHARDS || (shard_count & (shard_count - 1)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("shard_count must be a power of two, %d at most", MAX_SHARDS)));
	deconstruct_array(array, INT4OID, sizeof(int32), true, TYPALIGN_INT, &elements, &nulls, &n);
	for (i = 0; i < n; i++)
		if (nulls[i] || DatumGetInt32(elements[i]) < 0 || DatumGetInt32(elements[i]) >= shard_count)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("shards must be numbers from 0 to %d", shard_count - 1)));
}

/*
 * The stream must be one of this server's: QE605.  Takes AccessShareLock on kept_shards, to
 * the end of the transaction.
 */
void
KeptShardsRequire(const text *aggregate_type, const text *aggregate_id)
{
	KeptShards *here;
	int			shard;

	/* a change that was waited for is known with the lock */
	LockRelationOid(ExtensionRelid("kept_shards"), AccessShareLock);
	here = RegistryLookup(&kept, NULL);
	if (here->count == 0)
		return;
	shard = StreamHash(aggregate_type, aggregate_id) & (here->count - 1);
	if (!bms_is_member(shard, here->shards))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_SHARD),
				 errmsg("stream \"%s/%s\" belongs to another server", text_to_cstring(aggregate_type),
						text_to_cstring(aggregate_id)),
				 errdetail("It is of shard %d of %d, which is not kept here.", shard, here->count),
				 errhint("Look at the list of servers of whoever sent this call, and at cqrs_es.kept_shards on each of them.")));
}

static void
load(void *entry, const text *key, MemoryContext memory)
{
	static InternalQuery query = {.sql = "SELECT shard_count, shards FROM cqrs_es.kept_shards"};
	KeptShards *here = entry;
	MemoryContext caller;
	QueryRow	row;
	Datum	   *elements;
	int			n;
	int			i;

	if (RegistryRead(&query, NULL) == 0)
		return;
	row = InternalQueryRow(0);
	here->count = DatumGetInt32(InternalQueryDatum(&row, "shard_count", NULL));
	deconstruct_array(DatumGetArrayTypeP(InternalQueryDatum(&row, "shards", NULL)), INT4OID,
					  sizeof(int32), true, TYPALIGN_INT, &elements, NULL, &n);
	caller = MemoryContextSwitchTo(memory);
	for (i = 0; i < n; i++)
		here->shards = bms_add_member(here->shards, DatumGetInt32(elements[i]));
	MemoryContextSwitchTo(caller);
}
