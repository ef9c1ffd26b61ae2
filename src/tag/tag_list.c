/*-------------------------------------------------------------------------
 * tag_list.c
 *	  Tags of one event, each once.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/text.h"
#include "tag/tag_list.h"

static int	find(const TagList *list, const text *tag, bool *found);

/* Add a tag, unless it is there already; 54000 when there are too many. */
void
TagListAdd(TagList *list, text *tag)
{
	bool		found;
	int			place = find(list, tag, &found);

	if (found)
		return;
	if (list->n >= TAG_LIST_MAX)
		TagListReportTooMany();
	if (list->n == list->size)
	{
		list->size = Max(2 * list->size, 4);
		list->tags = list->tags == NULL ? palloc(list->size * sizeof(text *)) :
			repalloc(list->tags, list->size * sizeof(text *));
	}
	memmove(list->tags + place + 1, list->tags + place, (list->n - place) * sizeof(text *));
	list->tags[place] = tag;
	list->n++;
}

bool
TagListHas(const TagList *list, const text *tag)
{
	bool		found;

	(void) find(list, tag, &found);
	return found;
}

/* 54000 */
void
TagListReportTooMany(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("there cannot be more than %d tags", TAG_LIST_MAX)));
}

/* Where the tag is, or would be. */
static int
find(const TagList *list, const text *tag, bool *found)
{
	int			low = 0;
	int			high = list->n;

	*found = false;
	while (low < high && !*found)
	{
		int			middle = (low + high) / 2;
		int			order = TextCompare(list->tags[middle], tag);

		*found = order == 0;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return high;
}
