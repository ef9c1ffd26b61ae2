/*-------------------------------------------------------------------------
 * projection_status.c
 *	  What others see of a projection: how far its replay is, and what is wrong
 *	  with it.
 *
 * The views projection_progress and projection_status put it together
 * (sql/projection/780_projection_status.sql).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "commands/progress.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/text.h"
#include "projection/handler.h"
#include "projection/projection.h"
#include "projection/projection_status.h"

/*
 * What others see of a replay: the server's own progress reports.  It looks like
 * a COPY into cqrs_es.projections, which nobody runs; the view
 * projection_progress knows these places.
 */
#define PROGRESS_EVENTS			PROGRESS_COPY_TUPLES_PROCESSED
#define PROGRESS_PROJECTION		16	/* hash of the name */
#define PROGRESS_POSITION		17
#define PROGRESS_LAST_POSITION	18
#define PROGRESS_IS_REBUILD		19

PG_FUNCTION_INFO_V1(cqrs_es_projection_errors);

/*
 * SQL: projection_errors(name).  What would make appends or a replay fail now, one text for
 * everything that is missing (read models, and the owner, as whom a rebuild empties
 * them), and for every handler; null when nothing would.
 */
Datum
cqrs_es_projection_errors(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Projection *projection = ProjectionLoad(name);
	List	   *errors = NIL;
	ArrayBuildState *result = NULL;
	ListCell   *lc;

	if (projection == NULL)
		PG_RETURN_NULL();
	foreach(lc, projection->missing)
		errors = lappend(errors, psprintf("read model %s does not exist (SQLSTATE %s)",
										  (char *) lfirst(lc),
										  unpack_sql_state(ERRCODE_UNDEFINED_TABLE)));
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(projection->owner.role)))
		errors = lappend(errors, psprintf("role \"%s\", which owns the projection, does not exist (SQLSTATE %s)",
										  projection->owner.name,
										  unpack_sql_state(ERRCODE_UNDEFINED_OBJECT)));
	errors = list_concat(errors, HandlerProblems(projection));
	foreach(lc, errors)
		result = accumArrayResult(result, CStringGetTextDatum((char *) lfirst(lc)), false, TEXTOID,
								  CurrentMemoryContext);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}

/*
 * Say to others how far a replay is: it has replayed so many events, the last at
 * `position`, and will end at `last`.  A subtransaction of a handler that is rolled
 * back, or a command of its own, ends the server's report: then it begins anew
 * after that event.
 */
void
ProjectionStatusProgress(const Projection *projection, int64 last, bool rebuild,
						 int64 events, int64 position)
{
	Oid			relid = ExtensionRelid("projections");

	if (MyBEEntry && (MyBEEntry->st_progress_command != PROGRESS_COMMAND_COPY ||
					  MyBEEntry->st_progress_command_target != relid))
	{
		Datum		hash = DirectFunctionCall2Coll(hashtextextended, C_COLLATION_OID,
												   CStringGetTextDatum(projection->name),
												   Int64GetDatum(0));

		pgstat_progress_start_command(PROGRESS_COMMAND_COPY, relid);
		pgstat_progress_update_param(PROGRESS_PROJECTION, DatumGetInt64(hash));
		pgstat_progress_update_param(PROGRESS_LAST_POSITION, last);
		pgstat_progress_update_param(PROGRESS_IS_REBUILD, rebuild);
	}
	pgstat_progress_update_param(PROGRESS_EVENTS, events);
	pgstat_progress_update_param(PROGRESS_POSITION, position);
}

/* A replay is at its end. */
void
ProjectionStatusProgressEnd(void)
{
	pgstat_progress_end_command();
}
