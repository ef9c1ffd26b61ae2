/*-------------------------------------------------------------------------
 * try_append.c
 *	  Appends that tell of a conflict in a row, where those of append.c raise QE001.
 *
 * For whom an error costs more than a row: behind something that gives up its connection
 * with every error, as PL/Proxy does, for clients without exceptions, in the middle of a
 * transaction that is to go on without a savepoint.
 *
 * A conflict is known before anything is written (append.c), so the transaction goes on as
 * it was, and no subtransaction is needed.  Whatever else is an error there is one here, 40001
 * above READ COMMITTED among it.  Who does not look at the outcome commits what else the
 * transaction did.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/counter.h"
#include "base/read_only.h"
#include "log/append.h"

PG_FUNCTION_INFO_V1(cqrs_es_try_append_event);
PG_FUNCTION_INFO_V1(cqrs_es_try_append_events);
PG_FUNCTION_INFO_V1(cqrs_es_try_append_event_arrays);

static Datum append_and_tell(FunctionCallInfo fcinfo, AppendRequest *append);
static Datum outcome_datum(FunctionCallInfo fcinfo, bool fits, const AppendResult *result);

/* SQL: try_append_event, with the arguments of append_event */
Datum
cqrs_es_try_append_event(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfEvent(&append, fcinfo);
	return append_and_tell(fcinfo, &append);
}

/* SQL: try_append_events, with the arguments of append_events */
Datum
cqrs_es_try_append_events(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfBatch(&append, fcinfo);
	return append_and_tell(fcinfo, &append);
}

/* SQL: try_append_event_arrays, with the arguments of append_event_arrays */
Datum
cqrs_es_try_append_event_arrays(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfArrays(&append, fcinfo);
	return append_and_tell(fcinfo, &append);
}

/* A conflict counts as one that the client was told of. */
static Datum
append_and_tell(FunctionCallInfo fcinfo, AppendRequest *append)
{
	AppendResult result;
	bool		fits;

	ReadOnlyPrevent(fcinfo);
	fits = AppendEvents(append, &result);
	if (!fits)
		CounterAdd("conflict_counts", 0, true);
	return outcome_datum(fcinfo, fits, &result);
}

/* A value of the functions' type, cqrs_es.append_outcome. */
static Datum
outcome_datum(FunctionCallInfo fcinfo, bool fits, const AppendResult *result)
{
	Oid			type = get_fn_expr_rettype(fcinfo->flinfo);
	const char *outcome = !fits ? "conflict" : result->was_there ? "repeated" : "appended";
	Datum		values[3] = {CStringGetTextDatum(outcome), Int64GetDatum(result->version),
		Int64GetDatum(result->global_position)};
	bool		nulls[3] = {false, false, !fits};
	TupleDesc	desc;
	Datum		row;

	/* who calls it without an expression does not say */
	if (!OidIsValid(type))
		type = get_func_rettype(fcinfo->flinfo->fn_oid);
	desc = lookup_rowtype_tupdesc(type, -1);
	row = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	ReleaseTupleDesc(desc);
	return row;
}
