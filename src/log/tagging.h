/*-------------------------------------------------------------------------
 * tagging.h
 *	  Where the tags of events come from, and go to.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAGGING_H
#define CQRS_ES_TAGGING_H

#include "log/append_request.h"

/* The tags of an append, between the two calls that belong to it. */
typedef struct Tagging Tagging;

/* Locks; the room of tags knows more of them. */
struct TagSlotSet;

/* What the room of tags does for the log. */
typedef struct Tagger
{
	/*
	 * Behind RowExclusiveLock on the log, before anything of a stream is looked at and
	 * before a position is drawn: find out the tags that the events of the requests get,
	 * and lock them, together with what is asked for beside, or NULL.  NULL when none
	 * gets any.
	 */
	Tagging    *(*begin) (const AppendRequest *requests, int nrequests,
						  const struct TagSlotSet *asks);

	/*
	 * The events are in the log, and have their positions in the requests: write their
	 * tags. When triggers of the rows have written what is defined (`by_triggers`), only
	 * what the events were given beside.
	 */
	void		(*write) (const Tagging *tagging, bool by_triggers);

	/*
	 * The same as `begin` for a row that is about to be inserted into a table, with the
	 * tags that it brings, or NULL; sequence and time may be lacking.
	 */
	void		(*admit) (Relation rel, const Event *event, ArrayType *given);

	/* That row has been admitted, at this position; triggers of users may follow. */
	void		(*admitted) (Relation rel, int64 position);

	/*
	 * A row is in the log whose position this transaction drew: write its tags, and
	 * those that it brings, or NULL.  If it `ends`, its statement's end is told behind
	 * all its rows.
	 */
	void		(*row_written) (Relation rel, const Event *event, ArrayType *given, bool ends);
	void		(*statement_ended) (void);

	/*
	 * Has the event at a position, of a tenant, all these tags, as this transaction sees
	 * it?
	 */
	bool		(*has) (const text *tenant_id, int64 position, const text *event_type,
						ArrayType *tags);
} Tagger;

extern void TaggingSetTagger(const Tagger *by);
extern Tagging *TaggingBegin(const AppendRequest *requests, int nrequests,
							 const struct TagSlotSet *asks);
extern void TaggingWrite(const Tagging *tagging, bool by_triggers);
extern void TaggingAdmit(Relation rel, const Event *event);
extern void TaggingAdmitted(Relation rel, int64 position);
extern void TaggingRowWritten(Relation rel, const Event *event, bool ends);
extern void TaggingStatementEnded(void);
extern bool TaggingHas(const text *tenant_id, int64 position, const text *event_type, ArrayType *tags);

#endif							/* CQRS_ES_TAGGING_H */
