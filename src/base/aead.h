/*-------------------------------------------------------------------------
 * aead.h
 *	  Bytes that only who has the key can read, and nobody can change or move.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_AEAD_H
#define CQRS_ES_AEAD_H

#include "lib/stringinfo.h"

#define AEAD_KEY_LENGTH	32

/* what is sealed is longer by this */
#define AEAD_NONCE_LENGTH	12
#define AEAD_TAG_LENGTH		16
#define AEAD_OVERHEAD		(AEAD_NONCE_LENGTH + AEAD_TAG_LENGTH)

extern void AeadRequire(void);
extern void AeadRandom(void *bytes, size_t length);
extern void AeadAddTo(StringInfo about, const void *data, size_t length);
extern void AeadSeal(const uint8 *key, const StringInfoData *about, const void *plain, int length, uint8 *sealed);
extern bool AeadOpen(const uint8 *key, const StringInfoData *about, const uint8 *sealed, int length, void *plain);

#endif							/* CQRS_ES_AEAD_H */
