/*-------------------------------------------------------------------------
 * sealing.c
 *	  seal(): a new seal of the events since the last one.
 *
 * Nothing of this is asked of who appends.  What is sealed is settled: nothing can come
 * below it any more, and who seals knows that before he takes his snapshot, so that this
 * shows all of it (horizon.c).
 *
 * Those who seal wait for each other.  Who notes a change of a sealed event is waited
 * for, too, and kept out: see event_change.c.  Readers of the seals, and all who append,
 * go on.
 *
 * It is one pass over the new events, in one transaction, with a block in memory; who has a long
 * log to seal for the first time may do it in several calls, each up to a position.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "log/position.h"
#include "log/published.h"
#include "seal/event_change.h"
#include "seal/seal.h"
#include "seal/seal_block.h"

PG_FUNCTION_INFO_V1(cqrs_es_seal);

static int64 last_position(NullableDatum up_to_position);
static void begin_behind(const Seal *newest, int64 up_to_position, Seal *seal);
static void seal_events(Seal *seal, Sha256Digest *blocks_digest);
static void end_block(Seal *seal, SealBlockSum *sum, int64 up_to_position, Sha256Stream *blocks);
static void put_seal(ReturnSetInfo *result, const Seal *seal);

/*
 * SQL: seal(up_to_position).  NULL: up to the last settled event.  A position that is not settled
 * within cqrs_es.settle_timeout is a 55000; one of another node a 22023.  The newest seal
 * is returned, whether it is new or there was nothing to seal.  25001 above READ COMMITTED,
 * where the snapshot would be older than the locks; 42501 where policies would hide events from the
 * owner of the log.
 */
Datum
cqrs_es_seal(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Seal		newest = {0};
	Seal		seal = {0};
	bool		any;
	int64		up_to_position;
	Sha256Digest blocks;
	RoleSwitch	saved;

	ReadOnlyPrevent(fcinfo);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("seal() needs READ COMMITTED"),
				 errdetail("What others have sealed before would not be visible in this transaction's snapshot.")));
	if (PublishedIsFollowed())
		ereport(ERROR,
				(errcode(ERRCODE_LOG_FOLLOWS),
				 errmsg("this database follows the log of another one"),
				 errdetail("Changes by rule are noted where they are made, and not received with the events."),
				 errhint("Seal at the publisher; here from the cut-over on.")));
	InitMaterializedSRF(fcinfo, 0);
	seal.sealed_by = cstring_to_text(GetUserNameFromId(GetUserId(), false));
	saved = RoleSwitchToOwner("events");
	RoleSwitchRequireAllRows();
	up_to_position = last_position(fcinfo->args[0]);

	/*
	 * one lock against both, or who has noted a change and then seals could wait for who
	 * waits for him
	 */
	LockRelationOid(ExtensionRelid("event_changes"), ShareRowExclusiveLock);
	any = SealFindNewest(PositionNode(), InternalQueryFreshSnapshot(), &newest);
	begin_behind(any ? &newest : NULL, up_to_position, &seal);
	seal.changes = any ? EventChangesDigest(newest.number, InternalQueryFreshSnapshot(),
											&seal.changes_digest) : 0;
	if (seal.up_to_position > seal.after_position || seal.changes > 0)
	{
		if (!any)
			(void) EventChangesDigest(seal.number - 1, InternalQueryFreshSnapshot(),
									  &seal.changes_digest);
		seal_events(&seal, &blocks);
		seal.sealed_at = GetCurrentTimestamp();
		SealDigest(&seal, &blocks, &seal.digest);
		SealInsert(&seal);
		newest = seal;
		any = true;
	}
	RoleSwitchBack(&saved);
	if (any)
		put_seal(result, &newest);
	return (Datum) 0;
}

/* Up to where is to be sealed?  What is known then is known before any snapshot is taken. */
static int64
last_position(NullableDatum up_to_position)
{
	int64		settled;
	int64		wanted;

	if (up_to_position.isnull)
		return HorizonSettled(HorizonDeadline());
	wanted = DatumGetInt64(up_to_position.value);
	HorizonCheckPosition(wanted);
	settled = HorizonSettled(HorizonDeadline());
	if (wanted > settled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("position %lld is not settled", (long long) wanted),
				 errdetail("The last settled event is at position %lld.", (long long) settled)));
	return wanted;
}

/* The seal that follows on the newest; NULL: on nothing. */
static void
begin_behind(const Seal *newest, int64 up_to_position, Seal *seal)
{
	seal->number = newest ? newest->number + 1 : SealFirstNumber(PositionNode());
	seal->after_position = newest ? newest->up_to_position : PositionOfNumber(0);
	seal->up_to_position = Max(up_to_position, seal->after_position);
	if (newest)
		seal->previous = newest->digest;
}

/* Write the blocks of the seal, and count its events; the digest of all blocks. */
static void
seal_events(Seal *seal, Sha256Digest *blocks_digest)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanLog(seal->after_position, ForwardScanDirection, snapshot.snapshot);
	EventDigester *digester = EventDigesterBegin();
	SealBlockSum *sum = SealBlockSumBegin();
	Sha256Stream *blocks = Sha256Open();
	int64		last = seal->after_position;
	int64		nevents = 0;
	Event		event;

	Sha256Start(blocks);
	SealBlockStart(sum);
	while (EventScanNext(scan, &event) && EventGlobalPosition(&event) <= seal->up_to_position)
	{
		EventDigests digests;

		if (nevents >= SEAL_BLOCK_EVENTS && EventGlobalPosition(&event) > last)
		{
			end_block(seal, sum, last, blocks);
			SealBlockStart(sum);
			nevents = 0;
		}
		EventDigestMake(digester, &event, &digests);
		last = EventGlobalPosition(&event);
		SealBlockAdd(sum, last, &digests.event);
		nevents++;
	}
	if (seal->up_to_position > seal->after_position)
		end_block(seal, sum, seal->up_to_position, blocks);
	Sha256Finish(blocks, blocks_digest);
	Sha256Close(blocks);
	SealBlockSumEnd(sum);
	EventDigesterEnd(digester);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
}

static void
end_block(Seal *seal, SealBlockSum *sum, int64 up_to_position, Sha256Stream *blocks)
{
	SealBlock	block = {.up_to_position = up_to_position};

	SealBlockFinish(sum, &block);
	SealBlockInsert(seal->number, &block);
	SealBlockDescribe(blocks, &block);
	seal->events += block.events;
}

static void
put_seal(ReturnSetInfo *result, const Seal *seal)
{
	static const bool nulls[10] = {false};
	Datum		values[10] = {
		Int64GetDatum(seal->number), Int64GetDatum(seal->after_position),
		Int64GetDatum(seal->up_to_position), Int64GetDatum(seal->events),
		Int64GetDatum(seal->changes), SealDigestDatum(&seal->changes_digest),
		TimestampTzGetDatum(seal->sealed_at), PointerGetDatum(seal->sealed_by),
		SealDigestDatum(&seal->previous), SealDigestDatum(&seal->digest)
	};

	if (result->setDesc->natts != lengthof(values))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("table cqrs_es.seals has been altered")));
	tuplestore_putvalues(result->setResult, result->setDesc, values, (bool *) nulls);
}
