/*-------------------------------------------------------------------------
 * event_error.c
 *	  Which event an error came of, for programs.
 *
 * Whoever reads or replays the log and meets an event that cannot be dealt with has
 * to know its position to go on behind it; who appends, which stream and event it
 * was.  What has no field of its own stands in those of the server that name
 * database objects: aggregate type and id as schema and table, numbers as column and
 * data type.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "log/event_error.h"

/*
 * For an ereport about a stream, as one of its fields: with what is to stand as column
 * and as data type.
 */
int
EventErrorFields(const StreamKey *key, const char *column, const char *datatype)
{
	err_generic_string(PG_DIAG_SCHEMA_NAME, text_to_cstring(key->aggregate_type));
	err_generic_string(PG_DIAG_TABLE_NAME, text_to_cstring(key->aggregate_id));
	err_generic_string(PG_DIAG_COLUMN_NAME, column);
	err_generic_string(PG_DIAG_DATATYPE_NAME, datatype);
	return 0;
}

/*
 * Give an error that was taken off the stack the event: aggregate type and id as
 * schema and table, its sequence as column, its position as data type.  What the
 * error had there goes, its constraint stays.  In the current memory context.
 */
void
EventErrorName(ErrorData *error, const Event *event)
{
	error->schema_name = text_to_cstring(EventText(event, EVENT_AGGREGATE_TYPE));
	error->table_name = text_to_cstring(EventText(event, EVENT_AGGREGATE_ID));
	error->column_name = psprintf("%lld", (long long) EventSequence(event));
	error->datatype_name = psprintf("%lld", (long long) EventGlobalPosition(event));
}
