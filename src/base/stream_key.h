/*-------------------------------------------------------------------------
 * stream_key.h
 *	  Which stream.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STREAM_KEY_H
#define CQRS_ES_STREAM_KEY_H

#include "base/internal_query.h"

/*
 * The key of a stream.  The texts belong to the caller, are never toasted
 * (short headers are fine) and are compared bytewise (COLLATE "C").
 */
typedef struct StreamKey
{
	text	   *aggregate_type;
	text	   *aggregate_id;
	text	   *tenant_id;
} StreamKey;

extern char *StreamKeyName(const StreamKey *key);
extern StreamKey StreamKeyOfRow(const QueryRow *row);
extern bool StreamKeyEqual(const StreamKey *a, const StreamKey *b);
extern int	StreamKeyCompare(const StreamKey *a, const StreamKey *b);

#endif							/* CQRS_ES_STREAM_KEY_H */
