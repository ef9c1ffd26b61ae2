/*-------------------------------------------------------------------------
 * tagging.c
 *	  Where the tags of events come from, and go to.
 *
 * What tags are, the log does not know.  It says when: in which order an append takes the
 * lock on the log, the locks of its tags, the end of its stream, its positions, and writes
 * its rows and their tags (src/tag/tag_slot.c says why).  Tags are written where the row is, and not
 * when observers are told, for events of handlers wait in a queue until then.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "log/import_tags.h"
#include "log/tagging.h"

static const Tagger *tagger = NULL;

/* Called by an Init only. */
void
TaggingSetTagger(const Tagger *by)
{
	tagger = by;
}

/* See Tagger for this and the following. */
Tagging *
TaggingBegin(const AppendRequest *requests, int nrequests, const struct TagSlotSet *asks)
{
	return tagger ? tagger->begin(requests, nrequests, asks) : NULL;
}

void
TaggingWrite(const Tagging *tagging, bool by_triggers)
{
	if (tagging)
		tagger->write(tagging, by_triggers);
}

void
TaggingAdmit(Relation rel, const Event *event)
{
	if (tagger)
		tagger->admit(rel, event, ImportTagsOf(event, IMPORT_TAGS_ADMIT));
}

void
TaggingAdmitted(Relation rel, int64 position)
{
	if (tagger)
		tagger->admitted(rel, position);
}

void
TaggingRowWritten(Relation rel, const Event *event, bool ends)
{
	if (tagger)
		tagger->row_written(rel, event, ImportTagsOf(event, IMPORT_TAGS_WRITE), ends);
}

void
TaggingStatementEnded(void)
{
	if (tagger)
		tagger->statement_ended();
}

bool
TaggingHas(const text *tenant_id, int64 position, const text *event_type, ArrayType *tags)
{
	return tagger && tagger->has(tenant_id, position, event_type, tags);
}
