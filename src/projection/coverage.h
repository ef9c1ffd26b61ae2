/*-------------------------------------------------------------------------
 * coverage.h
 *	  Which events a projection has handled.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COVERAGE_H
#define CQRS_ES_COVERAGE_H

#include "base/internal_query.h"

/* Positions without a visible event, both ends included. */
typedef struct Gap
{
	int64		first;
	int64		last;
} Gap;

/* Handled: all events up to a position, but for those in gaps. */
typedef struct Coverage
{
	int64		position;
	int			ngaps;
	int			allocated;
	Gap		   *gaps;
} Coverage;

/* SQL: what makes a coverage of a row p of cqrs_es.projections. */
#define COVERAGE_COLUMNS \
	"coalesce(p.handled_position, 0) AS handled_position," \
	" ARRAY(SELECT pg_catalog.lower(gap) FROM pg_catalog.unnest(p.handled_gaps) AS gap ORDER BY 1)" \
	" AS gap_firsts," \
	" ARRAY(SELECT pg_catalog.upper(gap) OPERATOR(pg_catalog.-) 1" \
	" FROM pg_catalog.unnest(p.handled_gaps) AS gap ORDER BY 1) AS gap_lasts"

extern void CoverageOfRow(Coverage *handled, const QueryRow *row);
extern void CoverageAdd(Coverage *coverage, int64 position, int64 settled);
extern void CoverageGoOn(Coverage *coverage, const Coverage *before);
extern bool CoverageHas(const Coverage *coverage, int64 position, int *cursor);
extern int64 CoverageFirstMissing(const Coverage *coverage);
extern char *CoverageGaps(const Coverage *coverage);

#endif							/* CQRS_ES_COVERAGE_H */
