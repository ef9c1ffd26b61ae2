/*-------------------------------------------------------------------------
 * tag_list.h
 *	  Tags of one event, each once.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_LIST_H
#define CQRS_ES_TAG_LIST_H

#include "base/compat.h"

/* so many tags can an event have */
#define TAG_LIST_MAX 1000

/* In the order of their bytes; all zero is the empty one. */
typedef struct TagList
{
	int			n;
	int			size;
	text	  **tags;			/* palloc'd, as the first of them was added */
} TagList;

/* Add a tag, unless it is there already; 54000 when there are too many. */
extern void TagListAdd(TagList *list, text *tag);
extern bool TagListHas(const TagList *list, const text *tag);
pg_noreturn extern void TagListReportTooMany(void);

#endif							/* CQRS_ES_TAG_LIST_H */
