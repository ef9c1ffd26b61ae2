/*-------------------------------------------------------------------------
 * sha256.h
 *	  The SHA-256 of some bytes.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SHA256_H
#define CQRS_ES_SHA256_H

#include "common/sha2.h"

extern void Sha256(const char *data, size_t length, uint8 *digest);
extern bytea *Sha256Bytea(const char *data, size_t length);

#endif							/* CQRS_ES_SHA256_H */
