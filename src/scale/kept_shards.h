/*-------------------------------------------------------------------------
 * kept_shards.h
 *	  Which streams are this server's, where there are several.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_KEPT_SHARDS_H
#define CQRS_ES_KEPT_SHARDS_H

extern void KeptShardsInit(void);
extern void KeptShardsRequire(const text *aggregate_type, const text *aggregate_id);

#endif							/* CQRS_ES_KEPT_SHARDS_H */
