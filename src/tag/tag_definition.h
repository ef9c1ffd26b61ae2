/*-------------------------------------------------------------------------
 * tag_definition.h
 *	  Which tags events get from their payload, by their type.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_DEFINITION_H
#define CQRS_ES_TAG_DEFINITION_H

#include "base/compat.h"
#include "log/event_filter.h"
#include "tag/tag_template.h"

/* What define_tags said of an event type.  Lasts as an entry of a registry's cache does. */
typedef struct TagDefinition
{
	text	   *event_type;
	int			ntemplates;
	TagTemplate *templates;
	bool		is_complete;	/* do all events of the type have these tags, */
	int64		history_to;		/* or, if not, those behind this position? */
	uint64		hash;			/* of all that but is_complete */
} TagDefinition;

/*
 * Has somebody who wants events of its type with tags that a definition gives passed a
 * position?  `tell`: a WARNING names them; then it is where the first event is that lacks such
 * tags.
 */
typedef bool (*TagFollowers) (const TagDefinition *definition, int64 position, bool tell);

extern void TagDefinitionInit(void);
extern void TagDefinitionSetFollowers(TagFollowers by);

/*
 * What is defined for an event type, NULL when nothing is (with no templates it is known all
 * the same: whoever appends such an event holds the slot of its type).  Looked up in
 * what is committed now, as every registry.  Writers ask behind their RowExclusiveLock on
 * the log, which define_tags and drop_tags wait for; readers after they have read the last
 * position drawn, and before they take their snapshot.
 */
extern const TagDefinition *TagDefinitionOf(const text *event_type);

/* Is anything defined at all? */
extern bool TagDefinitionIsAny(void);

/*
 * All definitions as one text, and since when they hold: "" when there are none.  What was
 * made of the events that have certain tags is good for as long as it is the same.  Lasts as an
 * entry of a registry's cache does.
 */
extern const char *TagDefinitionFingerprint(void);

/*
 * 55000 when history of a type could lack this tag, because retag has not come to its end: of
 * one of these types, or of any when there are none.
 */
extern void TagDefinitionRequireTagged(const text *tag, text *const *event_types,
									   int nevent_types);

/* Could it give a tag of the filter to an event of a type that the filter wants? */
extern bool TagDefinitionConcerns(const TagDefinition *definition, const EventFilter *filter);

/*
 * 55000 when events behind a position could lack tags of the filter, because retag has not
 * come to its end.  Returns a number, never 0, that stays the same as long as the definitions
 * that concern the filter do.
 */
extern uint64 TagDefinitionAsk(const EventFilter *filter, int64 after_position);

#endif							/* CQRS_ES_TAG_DEFINITION_H */
