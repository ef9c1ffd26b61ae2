/*-------------------------------------------------------------------------
 * json_tree.c
 *	  A JSON document that can be changed in place, for folds.
 *
 * jsonb is made to be read: changing one number of a document means to write
 * all of it anew, which is most of what a naive fold costs.  Here a value is a
 * node that owns its children, and what is replaced is freed at once, so the
 * memory of a fold is that of its state.  jsonb comes in by JsonTreeFromJsonb
 * and goes out by JsonTreeToJsonb, once per fold.
 *
 * Small objects are searched one member after the other; from INDEX_MEMBERS on
 * there is a hash table from key to place, so that a state with many thousand
 * members does not make folding quadratic.
 *
 * All functions allocate in the current memory context, which must be the one
 * of the tree.  Deep documents are stopped by check_stack_depth (54001).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "base/compat.h"
#include "aggregate/json_tree.h"

/* from here on an object has an index */
#define INDEX_MEMBERS 16

typedef struct JsonIndexKey
{
	const char *data;
	int			len;
} JsonIndexKey;

typedef struct JsonIndexEntry
{
	JsonIndexKey key;			/* points to the member's key */
	int			position;
	uint32		hash;
	char		status;
} JsonIndexEntry;

#define SH_PREFIX json_index
#define SH_ELEMENT_TYPE JsonIndexEntry
#define SH_KEY_TYPE JsonIndexKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key).data, (key).len)
#define SH_EQUAL(tb, a, b) ((a).len == (b).len && memcmp((a).data, (b).data, (a).len) == 0)
#define SH_SCOPE static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, entry) (entry)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* a small number has at most so many decimal places */
#define MAX_SMALL_SCALE 8

static const int64 powers_of_ten[] = {
	1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000,
	INT64CONST(1000000000), INT64CONST(10000000000), INT64CONST(100000000000),
	INT64CONST(1000000000000), INT64CONST(10000000000000), INT64CONST(100000000000000),
	INT64CONST(1000000000000000), INT64CONST(10000000000000000),
	INT64CONST(100000000000000000), INT64CONST(1000000000000000000)
};

static void make_small(JsonNumber *number);
static bool small_add(JsonNumber *number, int64 scaled, int scale);
static Numeric number_numeric(const JsonNumber *number);
static bool small_from_numeric(Numeric numeric, int64 *scaled, int *scale);
static bool decode_short_numeric(Numeric numeric, int64 *scaled, int *scale);
static bool small_format_is_known(void);
static JsonNode *new_node(JsonNodeType type);
static JsonNode *tree_from_container(JsonbContainer *container);
static JsonbValue *push_tree(JsonbParseState **state, const JsonNode *node,
							 JsonbIteratorToken token);
static void free_content(JsonNode *node);
static inline int find_member(const JsonNode *object, const char *key, int len);
static void index_member(JsonNode *object, int position);
static void reserve_item(JsonNode *array);

/*-------------------------------------------------------------------------
 * in and out
 *-------------------------------------------------------------------------
 */

/* A whole document as a value that points into it. */
void
JsonTreeDocumentValue(Jsonb *json, JsonbValue *value)
{
	if (JB_ROOT_IS_SCALAR(json))
		(void) JsonbExtractScalar(&json->root, value);
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = &json->root;
		value->val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
}

/* The document as a tree. */
JsonNode *
JsonTreeFromJsonb(Jsonb *json)
{
	return tree_from_container(&json->root);
}

/* A value as a tree; a container's content is copied. */
JsonNode *
JsonTreeFromValue(const JsonbValue *value)
{
	JsonNode   *node;

	switch (value->type)
	{
		case jbvNull:
			return new_node(JSON_NODE_NULL);
		case jbvBool:
			node = new_node(JSON_NODE_BOOL);
			node->value.boolean = value->val.boolean;
			return node;
		case jbvNumeric:
			node = new_node(JSON_NODE_NUMBER);
			node->value.number.numeric = (Numeric) memcpy(palloc(VARSIZE(value->val.numeric)),
														  value->val.numeric,
														  VARSIZE(value->val.numeric));
			return node;
		case jbvString:
			node = new_node(JSON_NODE_STRING);
			node->value.string.len = value->val.string.len;
			node->value.string.data = memcpy(palloc(Max(value->val.string.len, 1)),
											 value->val.string.val, value->val.string.len);
			return node;
		case jbvBinary:
			return tree_from_container(value->val.binary.data);
		default:				/* not reached */
			elog(ERROR, "unexpected jsonb value type %d", value->type);
	}
}

JsonNode *
JsonTreeNewArray(void)
{
	return new_node(JSON_NODE_ARRAY);
}

JsonNode *
JsonTreeNewObject(void)
{
	return new_node(JSON_NODE_OBJECT);
}

/* The tree as jsonb, palloc'd. */
Jsonb *
JsonTreeToJsonb(const JsonNode *node)
{
	JsonbParseState *state = NULL;
	JsonbValue *value;

	if (node->type == JSON_NODE_ARRAY || node->type == JSON_NODE_OBJECT)
		value = push_tree(&state, node, WJB_DONE);
	else
	{
		/* a scalar document is an array of one, marked so */
		JsonbValue	scalar = {.type = jbvArray};

		scalar.val.array.rawScalar = true;
		scalar.val.array.nElems = 1;
		pushJsonbValue(&state, WJB_BEGIN_ARRAY, &scalar);
		push_tree(&state, node, WJB_ELEM);
		value = pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	}
	return JsonbValueToJsonb(value);
}

/* Free the tree. */
void
JsonTreeFree(JsonNode *node)
{
	free_content(node);
	pfree(node);
}

/* What to call a node in a message. */
const char *
JsonTreeTypeName(const JsonNode *node)
{
	switch (node->type)
	{
		case JSON_NODE_NULL:
			return "null";
		case JSON_NODE_BOOL:
			return "a boolean";
		case JSON_NODE_NUMBER:
			return "a number";
		case JSON_NODE_STRING:
			return "a string";
		case JSON_NODE_ARRAY:
			return "an array";
		default:
			return "an object";
	}
}

/*-------------------------------------------------------------------------
 * objects
 *-------------------------------------------------------------------------
 */

/* Where the member's value is kept, NULL when there is none; good until the next change. */
JsonNode **
JsonTreeFind(const JsonNode *object, const char *key, int len)
{
	int			position = find_member(object, key, len);

	return position < 0 ? NULL : &object->value.object.members[position].value;
}

/* Create or replace a member; the object takes the value over. */
void
JsonTreePut(JsonNode *object, const char *key, int len, JsonNode *value)
{
	int			position = find_member(object, key, len);
	JsonMember *member;

	if (position >= 0)
	{
		member = &object->value.object.members[position];
		JsonTreeFree(member->value);
		member->value = value;
		return;
	}
	if (object->value.object.n >= object->value.object.max)
	{
		int			max = Max(4, object->value.object.max * 2);
		Size		size = max * sizeof(JsonMember);

		object->value.object.members = object->value.object.members ?
			repalloc_huge(object->value.object.members, size) : palloc(size);
		object->value.object.max = max;
	}
	member = &object->value.object.members[object->value.object.n++];
	member->key = memcpy(palloc(Max(len, 1)), key, len);
	member->len = len;
	member->value = value;

	if (object->value.object.index)
		index_member(object, object->value.object.n - 1);
	else if (object->value.object.n >= INDEX_MEMBERS)
	{
		int			i;

		object->value.object.index = json_index_create(CurrentMemoryContext, 4 * INDEX_MEMBERS, NULL);
		for (i = 0; i < object->value.object.n; i++)
			index_member(object, i);
	}
}

/* Remove a member and its value; false when there is none. */
bool
JsonTreeRemove(JsonNode *object, const char *key, int len)
{
	int			position = find_member(object, key, len);
	int			last = object->value.object.n - 1;
	JsonMember *member;

	if (position < 0)
		return false;
	member = &object->value.object.members[position];
	if (object->value.object.index)
	{
		JsonIndexKey removed = {member->key, member->len};

		json_index_delete(object->value.object.index, removed);
	}
	JsonTreeFree(member->value);
	pfree(member->key);
	if (position != last)
	{
		/* the last one moves into the hole */
		*member = object->value.object.members[last];
		if (object->value.object.index)
		{
			JsonIndexKey moved = {member->key, member->len};

			json_index_lookup(object->value.object.index, moved)->position = position;
		}
	}
	object->value.object.n--;
	return true;
}

/*-------------------------------------------------------------------------
 * arrays and numbers
 *-------------------------------------------------------------------------
 */

/* Insert before `position`, 0 to the number of items; the array takes the item over. */
void
JsonTreeInsertItem(JsonNode *array, int position, JsonNode *item)
{
	JsonNode  **place;

	reserve_item(array);
	place = &array->value.array.items[position];
	memmove(place + 1, place, (array->value.array.n - position) * sizeof(JsonNode *));
	*place = item;
	array->value.array.n++;
}

/* Remove an item that is there. */
void
JsonTreeRemoveItem(JsonNode *array, int position)
{
	JsonNode  **place = &array->value.array.items[position];

	JsonTreeFree(*place);
	array->value.array.n--;
	memmove(place, place + 1, (array->value.array.n - position) * sizeof(JsonNode *));
}

/* A numeric as a number, which points to it if it is not small. */
void
JsonTreeReadNumber(JsonNumber *number, Numeric numeric)
{
	number->numeric = small_from_numeric(numeric, &number->scaled, &number->scale) ? NULL : numeric;
}

/*
 * Add to a number of a tree, exactly; 22003 when the result has too many
 * digits.  As long as numbers are small, the sum is kept as an integer and a
 * scale.
 */
void
JsonTreeAddNumber(JsonNumber *number, const JsonNumber *amount, bool subtract)
{
	Numeric		addend;
	Numeric		sum;

	if (number->numeric)
		make_small(number);
	if (number->numeric == NULL && amount->numeric == NULL &&
		small_add(number, subtract ? -amount->scaled : amount->scaled, amount->scale))
		return;

	number->numeric = number_numeric(number);
	addend = number_numeric(amount);
	sum = DatumGetNumeric(DirectFunctionCall2(subtract ? numeric_sub : numeric_add,
											  NumericGetDatum(number->numeric),
											  NumericGetDatum(addend)));
	pfree(number->numeric);
	if (addend != amount->numeric)
		pfree(addend);
	number->numeric = sum;
}

/*-------------------------------------------------------------------------
 * merge
 *-------------------------------------------------------------------------
 */

/*
 * Apply a JSON Merge Patch (RFC 7396): an object is merged member by member,
 * null removes a member, every other value replaces what is there.  Takes
 * target over (NULL: there is none) and returns what has become of it.
 */
JsonNode *
JsonTreeMerge(JsonNode *target, const JsonbValue *patch)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key = {.type = jbvNull};
	JsonbValue	value;

	check_stack_depth();
	if (patch->type != jbvBinary || !JsonContainerIsObject(patch->val.binary.data))
	{
		JsonNode   *replacement = JsonTreeFromValue(patch);

		if (target)
			JsonTreeFree(target);
		return replacement;
	}
	if (target && target->type != JSON_NODE_OBJECT)
	{
		JsonTreeFree(target);
		target = NULL;
	}
	if (target == NULL)
		target = new_node(JSON_NODE_OBJECT);

	iterator = JsonbIteratorInit(patch->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = value;
		if (token != WJB_VALUE)
			continue;
		if (value.type == jbvNull)
			(void) JsonTreeRemove(target, key.val.string.val, key.val.string.len);
		else if (value.type == jbvBinary && JsonContainerIsObject(value.val.binary.data))
		{
			JsonNode  **member = JsonTreeFind(target, key.val.string.val, key.val.string.len);

			if (member)
				*member = JsonTreeMerge(*member, &value);
			else
				JsonTreePut(target, key.val.string.val, key.val.string.len,
							JsonTreeMerge(NULL, &value));
		}
		else
			JsonTreePut(target, key.val.string.val, key.val.string.len,
						JsonTreeFromValue(&value));
	}
	return target;
}

/*-------------------------------------------------------------------------
 * small numbers: an int64 and a decimal scale
 *-------------------------------------------------------------------------
 */

/* Make the number of a tree small, if it can be. */
static void
make_small(JsonNumber *number)
{
	Numeric		numeric = number->numeric;

	JsonTreeReadNumber(number, numeric);
	if (number->numeric == NULL)
		pfree(numeric);
}

/* Add scaled / 10^scale to a small number; false, and no change, on overflow. */
static bool
small_add(JsonNumber *number, int64 scaled, int scale)
{
	int64		left = number->scaled;
	int			common = Max(scale, number->scale);

	if (scale != number->scale &&
		(pg_mul_s64_overflow(left, powers_of_ten[common - number->scale], &left) ||
		 pg_mul_s64_overflow(scaled, powers_of_ten[common - scale], &scaled)))
		return false;
	if (pg_add_s64_overflow(left, scaled, &left))
		return false;
	number->scaled = left;
	number->scale = common;
	return true;
}

/* The number as numeric; palloc'd, or the one it has. */
static Numeric
number_numeric(const JsonNumber *number)
{
	return number->numeric ? number->numeric :
		int64_div_fast_to_numeric(number->scaled, number->scale);
}

/*
 * Read a numeric of at most 16 digits before and MAX_SMALL_SCALE behind the
 * point.  That needs its storage format (described at the top of the server's
 * numeric.c, and fixed by every table on disk), because no function of the
 * server does this without allocating several times.  small_format_is_known
 * tries it once per backend; should the format ever change, all numbers take
 * the slow way.
 */
static bool
small_from_numeric(Numeric numeric, int64 *scaled, int *scale)
{
	static int	known = -1;

	if (known < 0)
	{
		known = 1;
		known = small_format_is_known();
	}
	if (!known)
		return false;			/* not reached, as long as the format is what it is */
	return decode_short_numeric(numeric, scaled, scale);
}

/* header bits of the short format */
#define SHORT_NUMERIC		0x8000
#define SHORT_MASK			0xC000
#define SHORT_NEGATIVE		0x2000
#define SHORT_SCALE(header)	(((header) & 0x1F80) >> 7)
#define SHORT_WEIGHT(header) (((header) & 0x0040 ? ~0x003F : 0) | ((header) & 0x003F))

static bool
decode_short_numeric(Numeric numeric, int64 *scaled, int *scale)
{
	const char *data = VARDATA_ANY((struct varlena *) numeric);
	int			ndigits = (int) (VARSIZE_ANY_EXHDR((struct varlena *) numeric) / sizeof(int16)) - 1;
	uint16		header;
	int			weight;
	int			below;			/* decimal places of the last digit */
	int64		value = 0;
	int			i;

	memcpy(&header, data, sizeof(header));
	if ((header & SHORT_MASK) != SHORT_NUMERIC)
		return false;
	weight = SHORT_WEIGHT(header);
	*scale = SHORT_SCALE(header);
	if (ndigits > 4 || weight > 3 || weight < -2 || *scale > MAX_SMALL_SCALE)
		return false;
	for (i = 0; i < ndigits; i++)
	{
		int16		digit;

		memcpy(&digit, data + sizeof(header) + i * sizeof(digit), sizeof(digit));
		value = value * 10000 + digit;
	}

	/* digits are base 10000, the scale counts decimal places */
	below = ndigits == 0 ? *scale : 4 * (ndigits - 1 - weight);
	if (below - *scale > 3 || *scale - below > 18)
		return false;
	if (below > *scale)
		value /= powers_of_ten[below - *scale];
	else if (pg_mul_s64_overflow(value, powers_of_ten[*scale - below], &value))
		return false;
	*scaled = header & SHORT_NEGATIVE ? -value : value;
	return true;
}

/* Does what we read equal what the server wrote? */
static bool
small_format_is_known(void)
{
	static const struct
	{
		int64		scaled;
		int			scale;
	}			samples[] = {
		{0, 0}, {1, 0}, {-1, 0}, {10000, 0}, {INT64CONST(1234567890123456), 0},
		{125, 2}, {-125, 2}, {5, 1}, {1, 8}, {INT64CONST(99999999999), 5}, {100, 2}
	};
	size_t		i;

	for (i = 0; i < lengthof(samples); i++)
	{
		Numeric		numeric = int64_div_fast_to_numeric(samples[i].scaled, samples[i].scale);
		int64		scaled;
		int			scale;
		bool		same = decode_short_numeric(numeric, &scaled, &scale) &&
			scaled == samples[i].scaled && scale == samples[i].scale;

		pfree(numeric);
		if (!same)
			return false;		/* not reached, likewise */
	}
	return true;
}

/*-------------------------------------------------------------------------
 * helpers
 *-------------------------------------------------------------------------
 */

static JsonNode *
new_node(JsonNodeType type)
{
	JsonNode   *node = palloc0(sizeof(JsonNode));

	node->type = type;
	return node;
}

static JsonNode *
tree_from_container(JsonbContainer *container)
{
	JsonbIterator *iterator = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	key = {.type = jbvNull};
	JsonbValue	value;
	JsonNode   *node = NULL;

	check_stack_depth();
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
				if (!value.val.array.rawScalar)
					node = new_node(JSON_NODE_ARRAY);
				break;
			case WJB_BEGIN_OBJECT:
				node = new_node(JSON_NODE_OBJECT);
				break;
			case WJB_KEY:
				key = value;
				break;
			case WJB_VALUE:
				JsonTreePut(node, key.val.string.val, key.val.string.len,
							JsonTreeFromValue(&value));
				break;
			case WJB_ELEM:
				if (node == NULL)
				{
					/* the scalar of a scalar document */
					node = JsonTreeFromValue(&value);
				}
				else
					JsonTreeInsertItem(node, node->value.array.n, JsonTreeFromValue(&value));
				break;
			default:
				break;
		}
	}
	return node;
}

/* Push a node; `token` says as what (of no meaning for a container). */
static JsonbValue *
push_tree(JsonbParseState **state, const JsonNode *node, JsonbIteratorToken token)
{
	JsonbValue	value;
	int			i;

	check_stack_depth();
	switch (node->type)
	{
		case JSON_NODE_NULL:
			value.type = jbvNull;
			break;
		case JSON_NODE_BOOL:
			value.type = jbvBool;
			value.val.boolean = node->value.boolean;
			break;
		case JSON_NODE_NUMBER:
			value.type = jbvNumeric;
			value.val.numeric = number_numeric(&node->value.number);
			break;
		case JSON_NODE_STRING:
			value.type = jbvString;
			value.val.string.val = node->value.string.data;
			value.val.string.len = node->value.string.len;
			break;
		case JSON_NODE_ARRAY:
			pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
			for (i = 0; i < node->value.array.n; i++)
				push_tree(state, node->value.array.items[i], WJB_ELEM);
			return pushJsonbValue(state, WJB_END_ARRAY, NULL);
		case JSON_NODE_OBJECT:
			pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
			for (i = 0; i < node->value.object.n; i++)
			{
				JsonbValue	key = {.type = jbvString};

				key.val.string.val = node->value.object.members[i].key;
				key.val.string.len = node->value.object.members[i].len;
				pushJsonbValue(state, WJB_KEY, &key);
				push_tree(state, node->value.object.members[i].value, WJB_VALUE);
			}
			return pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	return pushJsonbValue(state, token, &value);
}

/* Free what hangs below a node. */
static void
free_content(JsonNode *node)
{
	int			i;

	check_stack_depth();
	switch (node->type)
	{
		case JSON_NODE_NUMBER:
			if (node->value.number.numeric)
				pfree(node->value.number.numeric);
			break;
		case JSON_NODE_STRING:
			pfree(node->value.string.data);
			break;
		case JSON_NODE_ARRAY:
			for (i = 0; i < node->value.array.n; i++)
				JsonTreeFree(node->value.array.items[i]);
			if (node->value.array.items)
				pfree(node->value.array.items);
			break;
		case JSON_NODE_OBJECT:
			if (node->value.object.index)
				json_index_destroy(node->value.object.index);
			for (i = 0; i < node->value.object.n; i++)
			{
				pfree(node->value.object.members[i].key);
				JsonTreeFree(node->value.object.members[i].value);
			}
			if (node->value.object.members)
				pfree(node->value.object.members);
			break;
		default:
			break;
	}
}

/* The member's place, -1 when there is none. */
static inline int
find_member(const JsonNode *object, const char *key, int len)
{
	int			i;

	if (object->value.object.index)
	{
		JsonIndexKey wanted = {key, len};
		JsonIndexEntry *entry = json_index_lookup(object->value.object.index, wanted);

		return entry ? entry->position : -1;
	}
	for (i = 0; i < object->value.object.n; i++)
	{
		const JsonMember *member = &object->value.object.members[i];

		if (member->len == len && memcmp(member->key, key, len) == 0)
			return i;
	}
	return -1;
}

static void
index_member(JsonNode *object, int position)
{
	JsonMember *member = &object->value.object.members[position];
	JsonIndexKey key = {member->key, member->len};
	bool		found;

	json_index_insert(object->value.object.index, key, &found)->position = position;
}

static void
reserve_item(JsonNode *array)
{
	if (array->value.array.n >= array->value.array.max)
	{
		int			max = Max(4, array->value.array.max * 2);
		Size		size = max * sizeof(JsonNode *);

		array->value.array.items = array->value.array.items ?
			repalloc_huge(array->value.array.items, size) : palloc(size);
		array->value.array.max = max;
	}
}
