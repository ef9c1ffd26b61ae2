/*-------------------------------------------------------------------------
 * command_id.h
 *	  The id of a command, by which it is recognized when it is sent again.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COMMAND_ID_H
#define CQRS_ES_COMMAND_ID_H

#include "storage/lock.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "base/stream_key.h"

/* of the digest, so many hexadecimal digits are kept */
#define COMMAND_ID_DIGEST_CHARS	32

/* The identity of a command under way; private but for id and is_given. */
typedef struct CommandIdentity
{
	const StreamKey *key;
	pg_uuid_t	id;
	bool		is_given;		/* by the caller, so it may be a repetition */
	LOCKTAG		lock;
	bool		is_held;		/* that lock */
	bool		appends_show;	/* to those who wait for the stream, before we commit */
	char		digest[COMMAND_ID_DIGEST_CHARS + 1];	/* of type and payload, if
														 * is_given */
} CommandIdentity;

extern void CommandIdSet(CommandIdentity *identity, NullableDatum id, const StreamKey *key,
						 const text *type, Jsonb *payload);
extern Jsonb *CommandIdMetadata(const CommandIdentity *identity, Jsonb *metadata);
extern Jsonb *CommandIdStamp(const CommandIdentity *identity);
extern bool CommandIdIsOf(const CommandIdentity *identity, Jsonb *metadata);
extern int64 CommandIdFind(const CommandIdentity *identity, int64 loaded, int64 *searched,
						   int64 *global_position);
extern void CommandIdHold(CommandIdentity *identity, bool wait);
extern bool CommandIdIsAlone(const CommandIdentity *identity);
extern void CommandIdRelease(CommandIdentity *identity, bool appended);
extern void CommandIdAwaitStream(CommandIdentity *identity);

#endif							/* CQRS_ES_COMMAND_ID_H */
