/*-------------------------------------------------------------------------
 * json_pointer.c
 *	  '/customer/name': a place in a JSON document (RFC 6901).
 *
 * Each slash begins a key: of a member, or the number of an element of an array.  ~ is
 * written as ~0, and / within a key as ~1.  The empty pointer is the whole document.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "base/json_pointer.h"

static char *unescape(const char *begin, const char *end);
static JsonbValue *array_element(JsonbContainer *array, const char *key);

/* Split a pointer into its keys, palloc'd; false when it is none. */
bool
JsonPointerParse(JsonPointer *pointer, const char *source)
{
	const char *begin = source;

	pointer->nkeys = 0;
	pointer->keys = palloc((strlen(source) + 1) * sizeof(char *));
	while (*begin == '/')
	{
		const char *end = begin + 1 + strcspn(begin + 1, "/");
		char	   *key = unescape(begin + 1, end);

		if (key == NULL)
			return false;
		pointer->keys[pointer->nkeys++] = key;
		begin = end;
	}
	return *begin == '\0';
}

static char *
unescape(const char *begin, const char *end)
{
	char	   *key = palloc(end - begin + 1);
	char	   *to = key;
	const char *c;

	for (c = begin; c < end; c++)
	{
		if (*c != '~')
			*to++ = *c;
		else if (c + 1 < end && (c[1] == '0' || c[1] == '1'))
			*to++ = *++c == '0' ? '~' : '/';
		else
			return NULL;
	}
	*to = '\0';
	return key;
}

/* Does one lead to where the other does, or to something within that? */
bool
JsonPointerOverlaps(const JsonPointer *a, const JsonPointer *b)
{
	int			i;

	for (i = 0; i < Min(a->nkeys, b->nkeys); i++)
		if (strcmp(a->keys[i], b->keys[i]) != 0)
			return false;
	return true;
}

/*
 * The value to which a pointer with keys leads; false when it leads nowhere.  What *value points
 * to is in the document.
 */
bool
JsonPointerFind(const JsonPointer *pointer, Jsonb *json, JsonbValue *value)
{
	JsonbContainer *container = &json->root;
	int			i;

	if (JB_ROOT_IS_SCALAR(json))
		return false;
	for (i = 0; i < pointer->nkeys; i++)
	{
		const char *key = pointer->keys[i];
		JsonbValue *found;

		if (container == NULL)
			return false;
		found = JsonContainerIsArray(container) ? array_element(container, key) :
			getKeyJsonValueFromContainer(container, key, strlen(key), NULL);
		if (found == NULL)
			return false;
		*value = *found;
		pfree(found);
		container = value->type == jbvBinary ? value->val.binary.data : NULL;
	}
	return true;
}

/* The element of an array whose number is a key; NULL when there is none. */
static JsonbValue *
array_element(JsonbContainer *array, const char *key)
{
	if (strspn(key, "0123456789") != strlen(key) || strlen(key) == 0 || strlen(key) > 9 ||
		(key[0] == '0' && key[1] != '\0'))
		return NULL;
	return getIthJsonbValueFromContainer(array, (uint32) strtoul(key, NULL, 10));
}

/* The document with another value where the pointer leads, palloc'd; itself where it leads nowhere. */
Jsonb *
JsonPointerReplace(const JsonPointer *pointer, Jsonb *json, Jsonb *replacement)
{
	JsonbValue	value;
	Datum	   *keys;
	ArrayType  *path;
	int			i;

	if (pointer->nkeys == 0)
		return replacement;
	if (!JsonPointerFind(pointer, json, &value))
		return json;
	keys = palloc(pointer->nkeys * sizeof(Datum));
	for (i = 0; i < pointer->nkeys; i++)
		keys[i] = CStringGetTextDatum(pointer->keys[i]);
	path = construct_array(keys, pointer->nkeys, TEXTOID, -1, false, TYPALIGN_INT);
	return DatumGetJsonbP(DirectFunctionCall4(jsonb_set, JsonbPGetDatum(json), PointerGetDatum(path),
											  JsonbPGetDatum(replacement), BoolGetDatum(false)));
}
