/*-------------------------------------------------------------------------
 * boundary_query.h
 *	  The query of a boundary: with pointers into the command, and filled in.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BOUNDARY_QUERY_H
#define CQRS_ES_BOUNDARY_QUERY_H

#include "utils/jsonb.h"

#include "base/compat.h"

struct TagTemplate;

/* An item: events with one of the types and all of the tags. */
typedef struct BoundaryQueryItem
{
	int			ntypes;
	text	  **types;
	int			ntags;
	struct TagTemplate *tags;
} BoundaryQueryItem;

typedef struct BoundaryQuery
{
	int			nitems;
	BoundaryQueryItem *items;
} BoundaryQuery;

extern BoundaryQuery *BoundaryQueryParse(Jsonb *query);
extern Jsonb *BoundaryQueryFill(const BoundaryQuery *query, Jsonb *keys, const char *boundary);

#endif							/* CQRS_ES_BOUNDARY_QUERY_H */
