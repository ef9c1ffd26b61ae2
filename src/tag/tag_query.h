/*-------------------------------------------------------------------------
 * tag_query.h
 *	  Which events concern a decision: by type and tags, of whatever streams.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_QUERY_H
#define CQRS_ES_TAG_QUERY_H

#include "utils/jsonb.h"

#include "base/compat.h"
#include "tag/tag_slot.h"

/* so many items, and so many types and tags in all of them together */
#define TAG_QUERY_MAX 1000

/* Matches events that have one of the types, if there are any, and all of the tags. */
typedef struct TagQueryItem
{
	int			ntypes;
	text	  **types;			/* in the order of their bytes, each once */
	int			ntags;
	text	  **tags;			/* likewise */
	text	   *asked;			/* the tag whose slot a condition asks for; NULL without
								 * tags */
} TagQueryItem;

/* Matches events that one of its items matches. */
typedef struct TagQuery
{
	int			nitems;			/* at least 1 */
	TagQueryItem *items;
	bool		everything;		/* because one of them matches every event */
} TagQuery;

extern TagQuery *TagQueryParse(Jsonb *query);
extern void TagQueryAddAsks(const TagQuery *query, const text *tenant_id, TagSlotSet *set);
extern void TagQueryAddHas(const TagQuery *query, const text *tenant_id, TagSlotSet *set);
extern void TagQueryRequireDefined(const TagQuery *query);
extern bool TagQueryItemHasType(const TagQueryItem *item, const text *event_type);

#endif							/* CQRS_ES_TAG_QUERY_H */
