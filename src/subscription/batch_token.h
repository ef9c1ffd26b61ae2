/*-------------------------------------------------------------------------
 * batch_token.h
 *	  The token of a batch: who has it has the batch in hand.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BATCH_TOKEN_H
#define CQRS_ES_BATCH_TOKEN_H

#include "utils/uuid.h"

extern void BatchTokenMake(pg_uuid_t *token, int64 share);
extern int64 BatchTokenShare(const pg_uuid_t *token);

static inline bool
BatchTokenEqual(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN) == 0;
}

#endif							/* CQRS_ES_BATCH_TOKEN_H */
