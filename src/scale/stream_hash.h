/*-------------------------------------------------------------------------
 * stream_hash.h
 *	  Where a stream belongs, among several servers.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STREAM_HASH_H
#define CQRS_ES_STREAM_HASH_H

extern int32 StreamHash(const text *aggregate_type, const text *aggregate_id);

#endif							/* CQRS_ES_STREAM_HASH_H */
