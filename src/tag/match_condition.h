/*-------------------------------------------------------------------------
 * match_condition.h
 *	  Append unless something that matches has come in between.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_MATCH_CONDITION_H
#define CQRS_ES_MATCH_CONDITION_H

#include "log/append.h"
#include "tag/tag_query.h"
#include "tag/tag_slot.h"

/* Fail if an event matches the query and lies above the position. */
typedef struct MatchCondition
{
	AppendCondition base;
	const TagQuery *query;
	text	   *tenant_id;
	int64		after_position;
	TagSlotSet	asks;
	Event	   *match;			/* the first that does, when one was found */
} MatchCondition;

extern void MatchConditionInit(MatchCondition *condition, const TagQuery *query,
							   text *tenant_id, int64 after_position);
extern void MatchConditionLockLog(void);

#endif							/* CQRS_ES_MATCH_CONDITION_H */
