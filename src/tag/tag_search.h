/*-------------------------------------------------------------------------
 * tag_search.h
 *	  The events that match a query, in the order of their positions.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_SEARCH_H
#define CQRS_ES_TAG_SEARCH_H

#include "access/sdir.h"
#include "utils/snapshot.h"

#include "log/events.h"
#include "tag/tag_query.h"

/* A search under way; private. */
typedef struct TagSearch TagSearch;

extern TagSearch *TagSearchBegin(const TagQuery *query, text *tenant_id,
								 int64 after_position, int64 up_to_position,
								 ScanDirection direction, Snapshot snapshot);
extern bool TagSearchNext(TagSearch *search, Event *event);
extern void TagSearchEnd(TagSearch *search);

#endif							/* CQRS_ES_TAG_SEARCH_H */
