/*-------------------------------------------------------------------------
 * publisher_link.c
 *	  A connection to the publisher of a log.
 *
 * It is made as the server makes one for CREATE SUBSCRIPTION, by its own module, so we need
 * no client library; it reaches what the subscription will, with the same rights.
 *
 * A connection string may have a password in it.  What is wrong with one that cannot be read
 * is not told, since the server would cite the place.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "replication/walreceiver.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/extension.h"
#include "scale/publisher_link.h"

/* so many columns a row may have */
#define MAX_COLUMNS 8

static void check(const char *connection);

/* 42601 when the string cannot be read, 08001 when nobody is there, or lets us in. */
WalReceiverConn *
PublisherLinkOpen(const char *connection)
{
	WalReceiverConn *link;
	char	   *error;

	load_file("libpqwalreceiver", false);
	check(connection);
	link = compat_walrcv_connect(connection, CQRS_ES_SCHEMA, &error);
	if (link == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to the publisher: %s", error)));
	return link;
}

void
PublisherLinkClose(WalReceiverConn *link)
{
	walrcv_disconnect(link);
}

/*
 * Run a statement that gives one row of so many texts, palloc'd; NULL where one is null.  08000 when it
 * fails, or gives none: then the publisher's message says why.
 */
char **
PublisherLinkRow(WalReceiverConn *link, const char *sql, int ncolumns)
{
	static const Oid types[MAX_COLUMNS] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	char	  **row = palloc0(ncolumns * sizeof(char *));
	WalRcvExecResult *result = walrcv_exec(link, sql, ncolumns, types);
	TupleTableSlot *slot;
	int			i;

	if (result->status != WALRCV_OK_TUPLES)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("the publisher cannot be asked: %s", result->err ? result->err : "no answer")));
	slot = MakeSingleTupleTableSlot(result->tupledesc, &TTSOpsMinimalTuple);
	if (!tuplestore_gettupleslot(result->tuplestore, true, false, slot))
		elog(ERROR, "the publisher gave no row");
	for (i = 0; i < ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, i + 1, &isnull);

		row[i] = isnull ? NULL : TextDatumGetCString(value);
	}
	ExecDropSingleTupleTableSlot(slot);
	walrcv_clear_result(result);
	return row;
}

static void
check(const char *connection)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool is_right = true;

	PG_TRY();
	{
		compat_walrcv_check_conninfo(connection);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		if (geterrcode() != ERRCODE_SYNTAX_ERROR)
			PG_RE_THROW();
		FlushErrorState();
		is_right = false;
	}
	PG_END_TRY();
	if (!is_right)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the connection string cannot be read"),
				 errhint("It is one of libpq, such as 'host=publisher dbname=app user=follower'.")));
}
