/*-------------------------------------------------------------------------
 * closed_stream.h
 *	  Streams that have ended.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_CLOSED_STREAM_H
#define CQRS_ES_CLOSED_STREAM_H

#include "base/stream_key.h"

extern void ClosedStreamKeep(const StreamKey *key, int64 version);

#endif							/* CQRS_ES_CLOSED_STREAM_H */
