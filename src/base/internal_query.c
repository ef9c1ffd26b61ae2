/*-------------------------------------------------------------------------
 * internal_query.c
 *	  Constant SQL of our own, prepared once per backend and kept, as the
 *	  foreign-key triggers of the server do it.
 *
 * Registries and snapshots are read and written with the rights of the role that
 * owns the table, so that users need no grants on them (role_switch.c).
 * Nothing a caller can arrange may then reach into the statement: the texts name
 * every object and operator with its schema, and the search_path is fixed as
 * well, for what has no place for a schema (IS DISTINCT FROM).  Other settings
 * (fixed_settings.c) do not matter where values go in and out as they are; where they
 * become text, in registries and their fingerprints, they are fixed.  An error leaves
 * role and search_path to the transaction machinery, which restores them at
 * (sub)transaction abort.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "utils/snapmgr.h"

#include "base/extension.h"
#include "base/internal_query.h"
#include "base/older_sql.h"
#include "base/subtransaction.h"

static int	column_number(const QueryRow *row, const char *column);

/*
 * The statement's plan, prepared on first use.  Must be called between
 * SPI_connect and SPI_finish.  The plan lives as long as the backend.
 */
SPIPlanPtr
InternalQueryPlan(InternalQuery *query)
{
	bool		older = ExtensionIsOlder();

	/* after an update the old plan stays for whoever runs it still */
	if (query->plan == NULL || query->serves_older != older)
	{
		SPIPlanPtr	plan = SPI_prepare(OlderSqlQuery(query->sql), query->nargs, query->argtypes);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", query->sql,
				 SPI_result_code_string(SPI_result));
		query->plan = plan;
		query->serves_older = older;
	}
	return query->plan;
}

/*
 * Run a SELECT under the given snapshot.  Returns the number of rows;
 * SPI_tuptable holds them.  Call between SPI_connect and SPI_finish.
 */
uint64
InternalQueryRead(InternalQuery *query, Datum *values, const char *nulls,
				  Snapshot snapshot)
{
	int			rc;

	PushActiveSnapshot(snapshot);
	rc = SPI_execute_plan(InternalQueryPlan(query), values, nulls, true, 0);
	PopActiveSnapshot();
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of \"%s\": %s", query->sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * Run a writing statement; it sees what is committed now and all that this
 * transaction did.  Returns the number of rows.  Call between SPI_connect
 * and SPI_finish.
 */
uint64
InternalQueryWrite(InternalQuery *query, Datum *values, const char *nulls)
{
	int			rc = SPI_execute_plan(InternalQueryPlan(query), values, nulls, false, 0);

	if (rc < 0)
		elog(ERROR, "unexpected result of \"%s\": %s", query->sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * The same with the newest snapshot in every isolation level, as the server's
 * foreign keys look for rows.  A row that is being changed by somebody else is
 * waited for; above READ COMMITTED it is a 40001 if that one commits.
 */
uint64
InternalQueryWriteNewest(InternalQuery *query, Datum *values, const char *nulls)
{
	int			rc = SPI_execute_snapshot(InternalQueryPlan(query), values, nulls,
										  GetLatestSnapshot(), InvalidSnapshot,
										  false, true, 0);

	if (rc < 0)
		elog(ERROR, "unexpected result of \"%s\": %s", query->sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * Run a statement that writes; where it meets rows that are newer than the transaction's
 * snapshot, above READ COMMITTED, do nothing instead of failing.  (DO NOTHING and SKIP
 * LOCKED would fail as well.)
 */
void
InternalQueryWriteUnlessMoved(InternalQuery *query, Datum *values)
{
	Subtransaction subtransaction;
	ErrorData  *volatile error = NULL;

	if (!IsolationUsesXactSnapshot())
	{
		(void) InternalQueryWrite(query, values, NULL);
		return;
	}
	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		(void) InternalQueryWrite(query, values, NULL);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	/* a cancellation, say, in the short time that this takes */
	if (error != NULL && error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
		ReThrowError(error);
}

/*
 * One of the rows that SPI_tuptable holds, counted from 0.  It is good until
 * SPI_finish, also when other queries run meanwhile.
 */
QueryRow
InternalQueryRow(uint64 number)
{
	QueryRow	row = {SPI_tuptable->vals[number], SPI_tuptable->tupdesc};

	return row;
}

/*
 * The value of the column with this name, which is good as long as the row.  Where
 * isnull is NULL the column must have one.
 */
Datum
InternalQueryDatum(const QueryRow *row, const char *column, bool *isnull)
{
	bool		is_null;
	Datum		value = SPI_getbinval(row->tuple, row->desc, column_number(row, column), &is_null);

	if (isnull != NULL)
		*isnull = is_null;
	else if (is_null)
		elog(ERROR, "column \"%s\" is null", column);
	return value;
}

/* The same as text, palloc'd in the current memory context; NULL for null. */
char *
InternalQueryText(const QueryRow *row, const char *column)
{
	return SPI_getvalue(row->tuple, row->desc, column_number(row, column));
}

/* The same of a column of type text as it is, which outlives the row. */
text *
InternalQueryTextCopy(const QueryRow *row, const char *column)
{
	bool		isnull;
	Datum		value = InternalQueryDatum(row, column, &isnull);

	return isnull ? NULL : DatumGetTextPCopy(value);
}

/* Columns are asked for in their order, mostly, so the one behind the last is tried first. */
static int
column_number(const QueryRow *row, const char *column)
{
	static int	last = 0;
	int			number = last + 1;

	if (number > row->desc->natts ||
		strcmp(NameStr(TupleDescAttr(row->desc, number - 1)->attname), column) != 0)
		number = SPI_fnumber(row->desc, column);
	if (number <= 0)
		elog(ERROR, "a query of our own gave no column \"%s\"", column);
	last = number;
	return number;
}

/*
 * The newest snapshot the isolation level allows: what is committed now in
 * READ COMMITTED, the transaction's own above it.  It sees all that this
 * transaction did before.  Push or register it before use.
 */
Snapshot
InternalQueryFreshSnapshot(void)
{
	return IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : GetLatestSnapshot();
}
