/*-------------------------------------------------------------------------
 * subject_key.h
 *	  The keys of those whom personal data are about.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SUBJECT_KEY_H
#define CQRS_ES_SUBJECT_KEY_H

#include "utils/uuid.h"

#include "base/aead.h"
#include "base/compat.h"
#include "base/stream_key.h"

/* limit of a subject, in bytes */
#define SUBJECT_MAX_BYTES	255

/* The key of one subject in one stream. */
typedef struct SubjectKey
{
	pg_uuid_t	id;
	uint8		key[AEAD_KEY_LENGTH];
} SubjectKey;

/* A stream in which there is something about a subject, and the keys of that. */
typedef struct SubjectStream
{
	StreamKey	key;
	pg_uuid_t  *keys;
	int			nkeys;
} SubjectStream;

/* What has become of a key? */
typedef enum SubjectKeyFate
{
	SUBJECT_KEY_THERE,
	SUBJECT_KEY_FORGOTTEN,
	SUBJECT_KEY_MISSING
} SubjectKeyFate;

extern void SubjectKeyInit(void);
extern void SubjectKeyLock(const text *tenant_id, const text *subject, bool to_forget);
extern void SubjectKeyForEvents(const StreamKey *key, const text *subject, SubjectKey *found);
extern List *SubjectKeyStreams(const text *tenant_id, const text *subject);
extern bool SubjectKeyDrop(const text *tenant_id, const text *subject, const text *reason);
extern SubjectKeyFate SubjectKeyFind(const pg_uuid_t *id, uint8 *key);

#endif							/* CQRS_ES_SUBJECT_KEY_H */
