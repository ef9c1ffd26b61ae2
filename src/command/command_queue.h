/*-------------------------------------------------------------------------
 * command_queue.h
 *	  Commands queue up for a stream that many fight over.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COMMAND_QUEUE_H
#define CQRS_ES_COMMAND_QUEUE_H

#include "storage/lock.h"

#include "base/extension.h"
#include "base/stream_key.h"

/* A command's place; on the stack of who runs it. */
typedef struct CommandQueue
{
	LOCKTAG		slot;
	bool		may_wait;
	bool		holds_slot;
} CommandQueue;

extern void CommandQueueArrive(CommandQueue *queue, const StreamKey *key);
extern void CommandQueueDecided(CommandQueue *queue);
extern void CommandQueueLost(CommandQueue *queue);
extern void CommandQueueLeave(CommandQueue *queue);

#endif							/* CQRS_ES_COMMAND_QUEUE_H */
