/*-------------------------------------------------------------------------
 * cqrs_es.h
 *	  What every file of the extension may use.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_H
#define CQRS_ES_H

#include "utils/jsonb.h"

#include "base/compat.h"

#define CQRS_ES_SCHEMA "cqrs_es"

/*
 * The key of a stream.  The texts belong to the caller, are never toasted
 * (short headers are fine) and are compared bytewise (COLLATE "C").
 */
typedef struct StreamKey
{
	text	   *aggregate_type;
	text	   *aggregate_id;
	text	   *tenant_id;
}			StreamKey;

extern Oid	CqrsEsRelid(const char *relname);
extern char *StreamName(const StreamKey *key);
extern text *RequiredText(NullableDatum arg, const char *what, int max_bytes);

/* Bytewise equality of two untoasted texts. */
static inline bool
TextEqual(const text *a, const text *b)
{
	Size		size = VARSIZE_ANY_EXHDR(a);

	return size == VARSIZE_ANY_EXHDR(b) && memcmp(VARDATA_ANY(a), VARDATA_ANY(b), size) == 0;
}

#endif							/* CQRS_ES_H */
