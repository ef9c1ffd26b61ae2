/*-------------------------------------------------------------------------
 * inbox.c
 *	  Which messages from outside have been received.
 *
 * Queues and senders deliver at least once.  Who acts on a message asks in the same
 * transaction whether it is the first time, and so acts once: the answer and what
 * follows from it are committed together, or not at all.
 *
 * All rests on one unique index.  The row of a message is inserted, and where there is
 * one nothing is done.  The server lets whoever inserts the same key wait for the end
 * of the transaction, or savepoint, that has inserted it: if that commits, the message
 * has been received; if it rolls back, this one is the first.  Above READ COMMITTED a
 * row that the transaction's snapshot does not show is a 40001, for else one could not
 * see what followed from the message that one is told was received.
 *
 * Messages are forgotten by DELETE, portion by portion, when somebody says so.  That
 * takes no lock that anybody waits for, except a message that comes again just then,
 * after all that time.  Two tables in turn, of which the older is emptied by TRUNCATE,
 * would leave no dead rows; but a key can then stand in either table, so that whoever
 * turns them would have to lock out all who receive, and wait for each transaction
 * that has received something, or dumps the tables.  All others would stand behind it.
 *
 * There is no index on the time, which each message would have to pay for: the rows
 * are looked at in the order in which they lie, each once.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/itemptr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/extension.h"
#include "base/internal_query.h"
#include "base/portion.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/events.h"

/* with a tenant they share one index entry */
#define SOURCE_MAX_BYTES		255
#define MESSAGE_ID_MAX_BYTES	1024

/* Rows of so many pages, some ten thousand, are forgotten in one transaction. */
#define PORTION_BLOCKS			256

PG_FUNCTION_INFO_V1(cqrs_es_receive_message);
PG_FUNCTION_INFO_V1(cqrs_es_forget_messages);

static TimestampTz time_arg(NullableDatum older_than);
static BlockNumber table_blocks(void);
static uint64 forget_in(BlockNumber first, BlockNumber end, TimestampTz before);

/*
 * SQL: receive_message(source, message_id).  Takes the rights of somebody who appends.
 * Waits for another transaction that has received the same message.  Raises 22004,
 * 22023, 22001, 42501, QE007, 25006, and 40001 above READ COMMITTED.
 */
Datum
cqrs_es_receive_message(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.received_messages (tenant_id, source, message_id)"
		" VALUES ($1, $2, $3) ON CONFLICT (tenant_id, source, message_id) DO NOTHING",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3];
	RoleSwitch	saved;
	bool		is_first;

	ReadOnlyPrevent(fcinfo);
	EventsRefuseDistributed("receive_message()");
	EventsCheckRights(ACL_INSERT | ACL_SELECT);
	values[1] = PointerGetDatum(TextArgument(fcinfo->args[0], "source", SOURCE_MAX_BYTES));
	values[2] = PointerGetDatum(TextArgument(fcinfo->args[1], "message_id", MESSAGE_ID_MAX_BYTES));
	values[0] = PointerGetDatum(TenancyCurrent());

	SPI_connect();
	saved = RoleSwitchToOwner("received_messages");
	is_first = InternalQueryWrite(&query, values, NULL) > 0;
	RoleSwitchBack(&saved);
	SPI_finish();
	PG_RETURN_BOOL(is_first);
}

/*
 * SQL: CALL forget_messages(older_than).  Looks at all rows that are there when it
 * begins, and commits after each portion.  Raises 25001 in a transaction block or
 * function, 22004, 22023, 25006.
 */
Datum
cqrs_es_forget_messages(PG_FUNCTION_ARGS)
{
	TimestampTz before;
	BlockNumber blocks;
	BlockNumber block;
	uint64		forgotten = 0;

	PortionRequireOwnTransactions(fcinfo, "forget_messages()");
	ReadOnlyPrevent(fcinfo);
	before = time_arg(fcinfo->args[0]);
	blocks = table_blocks();
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	for (block = 0; block < blocks; block += Min(PORTION_BLOCKS, blocks - block))
	{
		if (block > 0)
			PortionCommit();
		CHECK_FOR_INTERRUPTS();
		forgotten += forget_in(block, block + Min(PORTION_BLOCKS, blocks - block), before);
	}
	SPI_finish();
	ereport(NOTICE,
			(errmsg("%llu messages have been forgotten", (unsigned long long) forgotten)));
	PG_RETURN_VOID();
}

/* Before when is longer ago than that: 22004, 22023 for a time to come, 22008. */
static TimestampTz
time_arg(NullableDatum older_than)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz before;

	if (older_than.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("older_than must not be null")));
	before = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
													 TimestampTzGetDatum(now),
													 older_than.value));
	if (before > now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("older_than must not be negative")));
	return before;
}

static BlockNumber
table_blocks(void)
{
	Relation	rel = table_open(ExtensionRelid("received_messages"), AccessShareLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return blocks;
}

/* Forget what was received before the time and lies in these blocks; how many rows. */
static uint64
forget_in(BlockNumber first, BlockNumber end, TimestampTz before)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.received_messages WHERE ctid OPERATOR(pg_catalog.>=) $1"
		" AND ctid OPERATOR(pg_catalog.<) $2 AND received_at OPERATOR(pg_catalog.<) $3",
		.nargs = 3,.argtypes = {TIDOID, TIDOID, TIMESTAMPTZOID}
	};
	ItemPointerData from;
	ItemPointerData to;
	Datum		values[3] = {PointerGetDatum(&from), PointerGetDatum(&to),
		TimestampTzGetDatum(before)};
	RoleSwitch	saved;
	uint64		forgotten;

	ItemPointerSet(&from, first, 0);
	ItemPointerSet(&to, end, 0);
	saved = RoleSwitchToOwner("received_messages");
	forgotten = InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	return forgotten;
}
