/*-------------------------------------------------------------------------
 * json_merge.h
 *	  JSON Merge Patch (RFC 7396).
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_JSON_MERGE_H
#define CQRS_ES_JSON_MERGE_H

#include "utils/jsonb.h"

extern Jsonb *JsonMergePatch(Jsonb *target, Jsonb *patch);

#endif							/* CQRS_ES_JSON_MERGE_H */
