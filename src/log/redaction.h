/*-------------------------------------------------------------------------
 * redaction.h
 *	  Members of events are replaced, by rule.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDACTION_H
#define CQRS_ES_REDACTION_H

#include "commands/trigger.h"
#include "utils/array.h"

#include "base/compat.h"
#include "base/stream_key.h"
#include "log/events.h"

/* What has been changed, of one stream. */
typedef struct Redaction
{
	StreamKey	key;
	int64		global_position;	/* of its event '$redacted' */
	int64		first_position; /* of the events that were changed */
	ArrayType  *positions;		/* bigint[]: of all of them */
	ArrayType  *event_types;	/* text[]: theirs, each once or more often */
} Redaction;

/*
 * What is done in other rooms, all of it in the transaction that redacts; NULL: nothing.  An
 * error undoes all.
 */
typedef struct RedactionPart
{
	/* Before anything of the log is locked: what has to be locked before that. */
	void		(*lock) (const StreamKey *key);

	/* An event is about to be changed. */
	void		(*event) (const Event *before, const Event *after, const text *reason);

	/*
	 * All of them have been changed.  Nobody else can append to the stream, and nobody
	 * has been told of '$redacted' yet: what held a copy follows.
	 */
	void		(*follow) (const Redaction *redaction);

	/*
	 * A stream that has been redacted elsewhere is received like that:
	 * RedactionReceived.
	 */
	void		(*received) (const StreamKey *key);
} RedactionPart;

extern void RedactionRegister(const RedactionPart *part);
extern void RedactionKeepOut(void);
extern bool RedactionMissed(void);
extern void RedactionReceived(const StreamKey *key);
extern bool RedactionPermits(const TriggerData *trigdata);

/* what stands in the place of a text that may have told what was erased */
#define REDACTED_TEXT "(redacted)"

#endif							/* CQRS_ES_REDACTION_H */
