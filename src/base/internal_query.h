/*-------------------------------------------------------------------------
 * internal_query.h
 *	  Constant SQL of our own, prepared once per backend.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_INTERNAL_QUERY_H
#define CQRS_ES_INTERNAL_QUERY_H

#include "executor/spi.h"
#include "utils/snapshot.h"

#define INTERNAL_QUERY_MAX_ARGS 24

/* One statement: schema-qualified text with $n, and its kept plan. */
typedef struct InternalQuery
{
	const char *sql;
	int			nargs;
	Oid			argtypes[INTERNAL_QUERY_MAX_ARGS];
	SPIPlanPtr	plan;			/* NULL until first used */
	bool		serves_older;	/* the plan is of a text for older SQL (older_sql.c) */
} InternalQuery;

/* A row that a query gave; its columns are read by their names. */
typedef struct QueryRow
{
	HeapTuple	tuple;
	TupleDesc	desc;
} QueryRow;

extern SPIPlanPtr InternalQueryPlan(InternalQuery *query);
extern uint64 InternalQueryRead(InternalQuery *query, Datum *values,
								const char *nulls, Snapshot snapshot);
extern uint64 InternalQueryWrite(InternalQuery *query, Datum *values,
								 const char *nulls);
extern uint64 InternalQueryWriteNewest(InternalQuery *query, Datum *values,
									   const char *nulls);
extern void InternalQueryWriteUnlessMoved(InternalQuery *query, Datum *values);
extern QueryRow InternalQueryRow(uint64 number);
extern Datum InternalQueryDatum(const QueryRow *row, const char *column, bool *isnull);
extern char *InternalQueryText(const QueryRow *row, const char *column);
extern text *InternalQueryTextCopy(const QueryRow *row, const char *column);
extern Snapshot InternalQueryFreshSnapshot(void);

#endif							/* CQRS_ES_INTERNAL_QUERY_H */
