/*-------------------------------------------------------------------------
 * batch_rows.c
 *	  The events of a batch as rows of a result.
 *
 * A row of the log as it lies there is the end of the row that is handed out, so
 * it is copied as a whole: to take it apart and to form another of its values takes
 * longer than to find it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "subscription/batch_rows.h"

/* How the columns before those of the event lie in a row. */
typedef struct RowFront
{
	pg_uuid_t	batch;
	int32		attempt;
	bool		redriven;
	TimestampTz leased_until;
} RowFront;

/* what follows is aligned as it was without them */
StaticAssertDecl(offsetof(RowFront, leased_until) == 24 && sizeof(RowFront) % MAXIMUM_ALIGNOF == 0,
				 "the columns before an event are not laid out as in a row");

static void add(BatchSink *sink, const NewBatch *batch, const Event *event, int attempt, bool redriven);
static void clear(BatchSink *sink);
static void put_whole_row(BatchRows *rows, const NewBatch *batch, HeapTuple event, int attempt,
						  bool redriven);
static void put_values(BatchRows *rows, const NewBatch *batch, const Event *event, int attempt,
					   bool redriven);

/* Events become rows of `result`, which is of receive_events(). */
void
BatchRowsInit(BatchRows *rows, ReturnSetInfo *result)
{
	if (result->setDesc->natts != BATCH_NCOLUMNS)
		elog(ERROR, "receive_events() has %d columns", result->setDesc->natts);
	memset(rows, 0, sizeof(BatchRows));
	rows->sink.add = add;
	rows->sink.clear = clear;
	rows->result = result;
}

static void
add(BatchSink *sink, const NewBatch *batch, const Event *event, int attempt, bool redriven)
{
	BatchRows  *rows = (BatchRows *) sink;

	if (event->row)
		put_whole_row(rows, batch, event->row, attempt, redriven);
	else
		put_values(rows, batch, event, attempt, redriven);
}

static void
clear(BatchSink *sink)
{
	tuplestore_clear(((BatchRows *) sink)->result->setResult);
}

/* What is formed here is what the server forms of the values, of which none is null. */
static void
put_whole_row(BatchRows *rows, const NewBatch *batch, HeapTuple event, int attempt, bool redriven)
{
	const Size	header_size = MAXALIGN(SizeofHeapTupleHeader);
	Size		event_size = event->t_len - event->t_data->t_hoff;
	union
	{
		HeapTupleHeaderData header;
		double		alignment;
		char		bytes[sizeof(RowFront) + MaxHeapTupleSize];
	}			buffer;
	HeapTupleData row = {.t_len = header_size + sizeof(RowFront) + event_size,.t_data = &buffer.header};
	RowFront   *front = (RowFront *) (buffer.bytes + header_size);

	Assert(row.t_len <= sizeof(buffer));
	memset(&buffer, 0, header_size + sizeof(RowFront));
	buffer.header.t_hoff = header_size;
	buffer.header.t_infomask = event->t_data->t_infomask & (HEAP_HASVARWIDTH | HEAP_HASEXTERNAL);
	HeapTupleHeaderSetNatts(&buffer.header, BATCH_NCOLUMNS);
	front->batch = batch->token;
	front->attempt = attempt;
	front->redriven = redriven;
	front->leased_until = batch->leased_until;
	memcpy(front + 1, (const char *) event->t_data + event->t_data->t_hoff, event_size);
	tuplestore_puttuple(rows->result->setResult, &row);
}

static void
put_values(BatchRows *rows, const NewBatch *batch, const Event *event, int attempt, bool redriven)
{
	static const bool nulls[BATCH_NCOLUMNS] = {false};

	rows->values[BATCH_COLUMN_BATCH] = UUIDPGetDatum(&batch->token);
	rows->values[BATCH_COLUMN_LEASED_UNTIL] = TimestampTzGetDatum(batch->leased_until);
	rows->values[BATCH_COLUMN_ATTEMPT] = Int32GetDatum(attempt);
	rows->values[BATCH_COLUMN_REDRIVEN] = BoolGetDatum(redriven);
	memcpy(&rows->values[BATCH_COLUMN_LEASED_UNTIL + 1], event->values, sizeof(event->values));
	tuplestore_putvalues(rows->result->setResult, rows->result->setDesc, rows->values, (bool *) nulls);
}
