/*-------------------------------------------------------------------------
 * master_key.h
 *	  The keys that wrap all others, and are in no database.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_MASTER_KEY_H
#define CQRS_ES_MASTER_KEY_H

#include "base/aead.h"

#define MASTER_KEY_ID_LENGTH	8

typedef struct MasterKey
{
	uint8		id[MASTER_KEY_ID_LENGTH];	/* says which it is, and nothing of it */
	uint8		key[AEAD_KEY_LENGTH];
} MasterKey;

extern void MasterKeyInit(void);
extern const MasterKey *MasterKeyCurrent(void);
extern const MasterKey *MasterKeyFind(const uint8 *id);

#endif							/* CQRS_ES_MASTER_KEY_H */
