/*-------------------------------------------------------------------------
 * json_merge.c
 *	  JSON Merge Patch (RFC 7396), the reducer of events without a reducer.
 *
 * An object in the patch is merged member by member; null removes a member;
 * every other value replaces what is there, a patch that is not an object the
 * whole document.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/jsonb.h"

#include "json_merge.h"

static JsonbValue *merge_object(JsonbParseState **state, JsonbContainer *target,
								JsonbContainer *patch);
static void push_merged(JsonbParseState **state, JsonbValue *key,
						JsonbContainer *target, JsonbValue *patch);
static JsonbContainer *as_object(JsonbValue *value);

/* `target` with `patch` applied, palloc'd; both stay as they are. */
Jsonb *
JsonMergePatch(Jsonb *target, Jsonb *patch)
{
	JsonbParseState *state = NULL;

	if (!JB_ROOT_IS_OBJECT(patch))
		return patch;
	return JsonbValueToJsonb(merge_object(&state,
										  JB_ROOT_IS_OBJECT(target) ? &target->root : NULL,
										  &patch->root));
}

/* Push the merged object; a NULL target is an empty one. */
static JsonbValue *
merge_object(JsonbParseState **state, JsonbContainer *target, JsonbContainer *patch)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;
	JsonbValue	found;

	check_stack_depth();
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (target)
	{
		iterator = JsonbIteratorInit(target);
		while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		{
			if (token == WJB_KEY)
				key = value;
			if (token != WJB_VALUE)
				continue;
			if (getKeyJsonValueFromContainer(patch, key.val.string.val,
											 key.val.string.len, &found) != NULL)
				push_merged(state, &key, as_object(&value), &found);
			else
			{
				pushJsonbValue(state, WJB_KEY, &key);
				pushJsonbValue(state, WJB_VALUE, &value);
			}
		}
	}
	iterator = JsonbIteratorInit(patch);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = value;
		if (token == WJB_VALUE &&
			(target == NULL ||
			 getKeyJsonValueFromContainer(target, key.val.string.val,
										  key.val.string.len, &found) == NULL))
			push_merged(state, &key, NULL, &value);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* Push the member that the patch speaks of, unless it removes it. */
static void
push_merged(JsonbParseState **state, JsonbValue *key, JsonbContainer *target,
			JsonbValue *patch)
{
	JsonbContainer *patch_object = as_object(patch);

	if (patch->type == jbvNull)
		return;
	pushJsonbValue(state, WJB_KEY, key);
	if (patch_object)
		merge_object(state, target, patch_object);
	else
		pushJsonbValue(state, WJB_VALUE, patch);
}

/* The value as an object, NULL when it is something else. */
static JsonbContainer *
as_object(JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data) ?
		value->val.binary.data : NULL;
}
