/*-------------------------------------------------------------------------
 * json_pointer.h
 *	  '/customer/name': a place in a JSON document (RFC 6901).
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_JSON_POINTER_H
#define CQRS_ES_JSON_POINTER_H

#include "utils/jsonb.h"

/* The keys on the way, unescaped. */
typedef struct JsonPointer
{
	int			nkeys;
	char	  **keys;
} JsonPointer;

extern bool JsonPointerParse(JsonPointer *pointer, const char *source);
extern bool JsonPointerOverlaps(const JsonPointer *a, const JsonPointer *b);
extern bool JsonPointerFind(const JsonPointer *pointer, Jsonb *json, JsonbValue *value);
extern Jsonb *JsonPointerReplace(const JsonPointer *pointer, Jsonb *json, Jsonb *replacement);

#endif							/* CQRS_ES_JSON_POINTER_H */
