/*-------------------------------------------------------------------------
 * import_tags.h
 *	  The tags that the rows of an import bring with them.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_IMPORT_TAGS_H
#define CQRS_ES_IMPORT_TAGS_H

#include "tcop/dest.h"
#include "utils/array.h"

#include "base/compat.h"
#include "log/events.h"

/* Which of the two looks at a row that has reached the log needs its tags. */
typedef enum ImportTagsFor
{
	IMPORT_TAGS_ADMIT,
	IMPORT_TAGS_WRITE
} ImportTagsFor;

/* Private. */
typedef struct ImportTags ImportTags;

/* The columns of what is put in, in this order: text, text, text, bigint, text[]. */
#define IMPORT_TAGS_COLUMNS "n.tenant_id, n.aggregate_type, n.aggregate_id, n.number, n.tags"

extern ImportTags *ImportTagsBegin(void);
extern DestReceiver * ImportTagsReceiver(ImportTags *tags);
extern void ImportTagsEnd(ImportTags *tags);
extern ArrayType *ImportTagsOf(const Event *event, ImportTagsFor purpose);

#endif							/* CQRS_ES_IMPORT_TAGS_H */
