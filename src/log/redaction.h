/*-------------------------------------------------------------------------
 * redaction.h
 *	  Members of events are replaced, and events removed, by rule.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDACTION_H
#define CQRS_ES_REDACTION_H

#include "commands/trigger.h"
#include "utils/array.h"

#include "base/compat.h"
#include "base/stream_key.h"
#include "log/events.h"

/*
 * What is changed, of one stream.  Whoever begins it gives the first five, and leaves all else
 * as zero.
 */
typedef struct Redaction
{
	StreamKey	key;
	const char *event_type;		/* of the event of ours that tells of it */
	ArrayType  *pointers;		/* text[] */
	text	   *reason;
	bool		removes;		/* all events in front of that one */

	/* that event, when it has begun */
	int64		global_position;
	int64		sequence;

	/* the events that were changed, when others follow */
	int64		n;
	int64		first_position;
	ArrayType  *positions;		/* bigint[] */
	ArrayType  *event_types;	/* text[]: each once or more often */

	/* private */
	ArrayBuildState *changed;
	ArrayBuildState *changed_types;
	MemoryContext memory;
	bool		was_held;
} Redaction;

/*
 * What is done in other rooms, all of it in the transaction that redacts; NULL: nothing.  An
 * error undoes all.
 */
typedef struct RedactionPart
{
	/* Before anything of the log is locked: what has to be locked before that. */
	void		(*lock) (const Redaction *redaction);

	/* An event is about to be changed, or removed: `after` is NULL. */
	void		(*event) (const Event *before, const Event *after, const text *reason);

	/*
	 * All of them have been changed.  Nobody else can append to the stream, and nobody
	 * has been told of our event yet: what held a copy follows.
	 */
	void		(*follow) (const Redaction *redaction);

	/*
	 * A stream that has been changed elsewhere is received like that: RedactionReceived.
	 * Of the events is told of which types they may be.
	 */
	void		(*received) (const Redaction *redaction);
} RedactionPart;

extern void RedactionRegister(const RedactionPart *part);
extern void RedactionRequirePossible(FunctionCallInfo fcinfo, const char *function);
extern void RedactionLockAll(void);
extern void RedactionLock(const Redaction *redaction);
extern void RedactionBegin(Redaction *redaction, const char *payload);
extern void RedactionNote(Redaction *redaction, const Event *before, const Event *after);
extern void RedactionNoteLost(Redaction *redaction, const Event *event);
extern void RedactionWrite(const Event *after);
extern void RedactionRemove(const Redaction *redaction);
extern int64 RedactionEnd(Redaction *redaction);
extern void RedactionKeepOut(void);
extern bool RedactionMissed(void);
extern void RedactionReceived(const Event *event);
extern bool RedactionPermits(const TriggerData *trigdata);

/* what stands in the place of a text that may have told what was erased */
#define REDACTED_TEXT "(redacted)"

#endif							/* CQRS_ES_REDACTION_H */
