/*-------------------------------------------------------------------------
 * batch_token.c
 *	  The token of a batch: who has it has the batch in hand.
 *
 * A uuid of version 8 (RFC 9562: its meaning is ours).  The first 48 bits are the
 * number of the share, so that its row is found; the rest is random and made anew
 * with each batch, not counted: a hand-out that was lost in a crash cannot come
 * back as a later one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "subscription/batch_token.h"

#define SHARE_BYTES 6

/* A new token for a batch of this share. */
void
BatchTokenMake(pg_uuid_t *token, int64 share)
{
	int			i;

	if (!pg_strong_random(token->data + SHARE_BYTES, UUID_LEN - SHARE_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	for (i = 0; i < SHARE_BYTES; i++)
		token->data[i] = (unsigned char) (share >> (SHARE_BYTES - 1 - i) * BITS_PER_BYTE);
	token->data[6] = (token->data[6] & 0x0f) | 0x80;
	token->data[8] = (token->data[8] & 0x3f) | 0x80;
}

/* The number of the share that a token says; any uuid says one. */
int64
BatchTokenShare(const pg_uuid_t *token)
{
	int64		share = 0;
	int			i;

	for (i = 0; i < SHARE_BYTES; i++)
		share = share << BITS_PER_BYTE | token->data[i];
	return share;
}
