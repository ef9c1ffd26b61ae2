/*-------------------------------------------------------------------------
 * streams_append.h
 *	  Events that each name the stream to which they are appended.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STREAMS_APPEND_H
#define CQRS_ES_STREAMS_APPEND_H

#include "log/append.h"
#include "tag/tag_slot.h"

/* the aggregate type of events without a stream; the aggregate id is that of the event */
#define STREAM_OF_ITS_OWN "$event"

/* One append to several streams. */
typedef struct StreamsAppend
{
	AppendCall	call;
	int		   *request_of;		/* for each event, in the order given: to which request
								 * ... */
	int		   *place_of;		/* ... of the call it belongs, and where it stands there */
} StreamsAppend;

extern StreamsAppend *StreamsAppendParse(Jsonb *events, const char *origin,
										 Jsonb *metadata, Jsonb *stamp);
extern void StreamsAppendAddTag(StreamsAppend *append, int event, text *tag);
extern void StreamsAppendAddSlots(const StreamsAppend *append, TagSlotSet *set);
extern int64 StreamsAppendRun(StreamsAppend *append, AppendCondition *condition);

#endif							/* CQRS_ES_STREAMS_APPEND_H */
