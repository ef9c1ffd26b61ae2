/*-------------------------------------------------------------------------
 * coverage.c
 *	  Which events a projection has handled: all up to a position, but for those in
 *	  gaps below it.
 *
 * At any moment positions are missing that in-flight transactions hold, so a
 * position alone would not do.  Gaps that are settled (horizon.c) are dead and need
 * not be remembered.  A paused projection has its coverage in its row, as
 * handled_position and handled_gaps.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "projection/coverage.h"

static void add_gap(Coverage *coverage, Gap gap);
static Datum *positions_of(const QueryRow *row, const char *column, int *n);

/*
 * What a row with COVERAGE_COLUMNS says to be handled, in the current memory
 * context.
 */
void
CoverageOfRow(Coverage *handled, const QueryRow *row)
{
	Datum	   *firsts = positions_of(row, "gap_firsts", &handled->ngaps);
	Datum	   *lasts = positions_of(row, "gap_lasts", &handled->ngaps);
	int			i;

	handled->position = DatumGetInt64(InternalQueryDatum(row, "handled_position", NULL));
	handled->allocated = Max(handled->ngaps, 1);
	handled->gaps = MemoryContextAllocHuge(CurrentMemoryContext, handled->allocated * sizeof(Gap));
	for (i = 0; i < handled->ngaps; i++)
	{
		handled->gaps[i].first = DatumGetInt64(firsts[i]);
		handled->gaps[i].last = DatumGetInt64(lasts[i]);
	}
}

/* The elements of an array of bigint without nulls, palloc'd. */
static Datum *
positions_of(const QueryRow *row, const char *column, int *n)
{
	Datum	   *positions;

	deconstruct_array(DatumGetArrayTypeP(InternalQueryDatum(row, column, NULL)),
					  INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &positions, NULL, n);
	return positions;
}

/*
 * Add the next visible event, which is behind all of it, and with it the gap before
 * it, unless that is settled (all up to `settled` is).  The first gap goes into the
 * current memory context, the others where that is.
 */
void
CoverageAdd(Coverage *coverage, int64 position, int64 settled)
{
	Gap			gap = {Max(coverage->position, settled) + 1, position - 1};

	if (gap.first <= gap.last)
		add_gap(coverage, gap);
	coverage->position = position;
}

/*
 * Add what was handled before behind all of it: a replay that stopped half-way has
 * looked no further.
 */
void
CoverageGoOn(Coverage *coverage, const Coverage *before)
{
	int64		looked_to = coverage->position;
	int			i;

	for (i = 0; i < before->ngaps; i++)
	{
		Gap			gap = {Max(before->gaps[i].first, looked_to + 1), before->gaps[i].last};

		if (gap.first <= gap.last)
			add_gap(coverage, gap);
	}
	coverage->position = Max(coverage->position, before->position);
}

static void
add_gap(Coverage *coverage, Gap gap)
{
	if (coverage->ngaps == coverage->allocated)
	{
		coverage->allocated = Max(16, 2 * coverage->allocated);
		coverage->gaps = coverage->gaps ?
			repalloc_huge(coverage->gaps, coverage->allocated * sizeof(Gap)) :
			palloc(coverage->allocated * sizeof(Gap));
	}
	coverage->gaps[coverage->ngaps++] = gap;
}

/* Is the event at the position handled?  Asked with rising positions; *cursor begins at 0. */
bool
CoverageHas(const Coverage *coverage, int64 position, int *cursor)
{
	if (position > coverage->position)
		return false;
	while (*cursor < coverage->ngaps && coverage->gaps[*cursor].last < position)
		(*cursor)++;
	return *cursor == coverage->ngaps || position < coverage->gaps[*cursor].first;
}

/* The first position that may have an event which is not handled. */
int64
CoverageFirstMissing(const Coverage *coverage)
{
	return coverage->ngaps > 0 ? coverage->gaps[0].first : coverage->position + 1;
}

/* The gaps as a text that int8multirange takes, palloc'd. */
char *
CoverageGaps(const Coverage *coverage)
{
	StringInfoData gaps;
	int			i;

	initStringInfo(&gaps);
	for (i = 0; i < coverage->ngaps; i++)
		appendStringInfo(&gaps, "%s[%lld,%lld]", i == 0 ? "{" : ",",
						 (long long) coverage->gaps[i].first, (long long) coverage->gaps[i].last);
	appendStringInfoChar(&gaps, '}');
	return gaps.data;
}
