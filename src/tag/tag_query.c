/*-------------------------------------------------------------------------
 * tag_query.c
 *	  Which events concern a decision: by type and tags, of whatever streams.
 *
 * A query comes as the JSON of dcb.events: an array of items, or an object with that array
 * as its member "items".  An event matches an item when it has one of its types and all of
 * its tags, and the query when it matches one of its items.  An item that names no types
 * is content with any, one that names no tags with none; so [{}] matches every event.  An
 * empty query would match none, and is an error: whoever sends it has lost something on
 * the way.
 *
 * What a condition has locked (tag_slot.c).  Whatever matches an item has all of its tags, so
 * it is enough to ask for the slot of one.  For which one is free to choose: one that
 * another item asks for anyway, else the last, so that whoever writes the most specific
 * tag last is in the way of the fewest.  An item without tags asks for the slots of its
 * types; these exist for types that define_tags knows.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/text.h"
#include "log/events.h"
#include "tag/tag_definition.h"
#include "tag/tag_query.h"

#define QUERY_HINT \
	"It is [{\"types\": [...], \"tags\": [...]}, ...], or an object with that array as its member \"items\"."

static JsonbContainer *items_of(Jsonb *query);
static void parse_item(TagQueryItem *item, JsonbContainer *object, int *ntexts);
static int	parse_texts(JsonbValue *value, const char *member, const char *what, int max_bytes,
						text ***texts, int *ntexts);
static int	sort_texts(text **texts, int n);
static void choose_asked(TagQuery *query);
static bool is_asked(const TagQuery *query, int before, const text *tag);
pg_noreturn static void report_unknown_type(const text *event_type);
static int	compare_texts(const void *a, const void *b);

/*
 * Parse and check a query.  Palloc'd in the current memory context, texts included.
 * Raises 22023 for what is no query, 22001 for a type or tag that is too long,
 * 54000 when there is too much of it.
 */
TagQuery *
TagQueryParse(Jsonb *query)
{
	JsonbContainer *items = items_of(query);
	JsonbIterator *iterator = JsonbIteratorInit(items);
	JsonbIteratorToken token;
	JsonbValue	element;
	TagQuery   *result = palloc(sizeof(TagQuery));
	int			ntexts = 0;

	if (JsonContainerSize(items) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query must have at least one item"),
				 errhint("[{}] matches every event.")));
	if (JsonContainerSize(items) > TAG_QUERY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a query can have at most %d items", TAG_QUERY_MAX)));
	result->nitems = 0;
	result->items = palloc0(JsonContainerSize(items) * sizeof(TagQueryItem));
	result->everything = false;
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		TagQueryItem *item = &result->items[result->nitems];

		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvBinary || !JsonContainerIsObject(element.val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("an item of a query must be a JSON object"),
					 errhint(QUERY_HINT)));
		parse_item(item, element.val.binary.data, &ntexts);
		result->everything |= item->ntypes == 0 && item->ntags == 0;
		result->nitems++;
	}
	choose_asked(result);
	return result;
}

/* The array of items. */
static JsonbContainer *
items_of(Jsonb *query)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbContainer *items = NULL;

	if (JB_ROOT_IS_ARRAY(query) && !JB_ROOT_IS_SCALAR(query))
		return &query->root;
	if (JB_ROOT_IS_OBJECT(query))
	{
		iterator = JsonbIteratorInit(&query->root);
		while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		{
			if (token == WJB_KEY &&
				(value.val.string.len != 5 || memcmp(value.val.string.val, "items", 5) != 0))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("a query has no member \"%s\"",
								pnstrdup(value.val.string.val, value.val.string.len)),
						 errhint(QUERY_HINT)));
			if (token == WJB_VALUE && value.type == jbvBinary &&
				JsonContainerIsArray(value.val.binary.data))
				items = value.val.binary.data;
		}
	}
	if (items == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a query must be a JSON array of items"),
				 errhint(QUERY_HINT)));
	return items;
}

static void
parse_item(TagQueryItem *item, JsonbContainer *object, int *ntexts)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *member = NULL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			member = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (strcmp(member, "types") == 0)
			item->ntypes = parse_texts(&value, member, "an event type in a query",
									   EVENT_TYPE_MAX_BYTES, &item->types, ntexts);
		else if (strcmp(member, "tags") == 0)
			item->ntags = parse_texts(&value, member, "a tag in a query",
									  EVENT_TAG_MAX_BYTES, &item->tags, ntexts);
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("an item of a query has no member \"%s\"", member),
					 errhint("The members are types and tags.")));
	}
	item->asked = item->ntags > 0 ? item->tags[item->ntags - 1] : NULL;
	item->ntypes = sort_texts(item->types, item->ntypes);
	item->ntags = sort_texts(item->tags, item->ntags);
}

/* The texts as they stand there; returns their number. */
static int
parse_texts(JsonbValue *value, const char *member, const char *what, int max_bytes,
			text ***texts, int *ntexts)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	element;
	int			n = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("member \"%s\" of an item of a query must be an array of strings", member)));
	*ntexts += JsonContainerSize(value->val.binary.data);
	if (*ntexts > TAG_QUERY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a query can have at most %d types and tags", TAG_QUERY_MAX)));
	*texts = palloc(Max(JsonContainerSize(value->val.binary.data), 1) * sizeof(text *));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		NullableDatum argument = {.isnull = false};

		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("member \"%s\" of an item of a query must be an array of strings",
							member)));
		argument.value = PointerGetDatum(cstring_to_text_with_len(element.val.string.val,
																  element.val.string.len));
		(*texts)[n++] = TextArgument(argument, what, max_bytes);
	}
	return n;
}

/* Into the order of their bytes, each once; returns how many are left. */
static int
sort_texts(text **texts, int n)
{
	int			nunique = 0;
	int			i;

	qsort(texts, n, sizeof(text *), compare_texts);
	for (i = 0; i < n; i++)
		if (nunique == 0 || !TextEqual(texts[nunique - 1], texts[i]))
			texts[nunique++] = texts[i];
	return nunique;
}

static int
compare_texts(const void *a, const void *b)
{
	return TextCompare(*(text *const *) a, *(text *const *) b);
}

/*
 * For each item with tags, the one to ask for: where it has just one there is no choice; of
 * several it is the last, which is there already, unless one is asked for anyway.
 */
static void
choose_asked(TagQuery *query)
{
	int			i;
	int			j;

	for (i = 0; i < query->nitems; i++)
	{
		TagQueryItem *item = &query->items[i];

		for (j = 0; j < item->ntags && item->ntags > 1; j++)
			if (is_asked(query, i, item->tags[j]))
			{
				item->asked = item->tags[j];
				break;
			}
	}
}

/* Is it the only tag of an item, or has one before this chosen it? */
static bool
is_asked(const TagQuery *query, int before, const text *tag)
{
	int			i;

	for (i = 0; i < query->nitems; i++)
		if ((i < before || query->items[i].ntags == 1) && query->items[i].asked != NULL &&
			TextEqual(query->items[i].asked, tag))
			return true;
	return false;
}

/*-------------------------------------------------------------------------
 * what it takes to ask
 *-------------------------------------------------------------------------
 */

/*
 * Add the slots that a condition with this query asks for.  None for everything: that is
 * for the lock of the position sequence.
 */
void
TagQueryAddAsks(const TagQuery *query, const text *tenant_id, TagSlotSet *set)
{
	int			i;
	int			j;

	if (query->everything)
		return;
	for (i = 0; i < query->nitems; i++)
	{
		const TagQueryItem *item = &query->items[i];

		if (item->asked)
			TagSlotSetAddAsks(set, TagSlotOfTag(tenant_id, item->asked));
		else
			for (j = 0; j < item->ntypes; j++)
				TagSlotSetAddAsks(set, TagSlotOfType(tenant_id, item->types[j]));
	}
}

/*
 * Add the slots that an event has which has all types and tags of the query: whoever will
 * append such events after a decision takes them together with those it asks for.
 * Behind RowExclusiveLock on the log.
 */
void
TagQueryAddHas(const TagQuery *query, const text *tenant_id, TagSlotSet *set)
{
	int			i;
	int			j;

	for (i = 0; i < query->nitems; i++)
	{
		const TagQueryItem *item = &query->items[i];

		for (j = 0; j < item->ntags; j++)
			TagSlotSetAddHas(set, TagSlotOfTag(tenant_id, item->tags[j]));
		for (j = 0; j < item->ntypes; j++)
			if (TagDefinitionOf(item->types[j]))
				TagSlotSetAddHas(set, TagSlotOfType(tenant_id, item->types[j]));
	}
}

/*
 * Can what the query asks for be told?  Not while history of its types may lack their tags
 * (55000), and not by types that define_tags does not know (22023).  Asked when
 * writers with another answer are known to have ended, or will be waited for: behind
 * RowExclusiveLock on the log, or after the last position drawn was read.
 */
void
TagQueryRequireDefined(const TagQuery *query)
{
	int			i;
	int			j;

	for (i = 0; i < query->nitems && !query->everything; i++)
	{
		const TagQueryItem *item = &query->items[i];

		for (j = 0; j < item->ntags; j++)
			TagDefinitionRequireTagged(item->tags[j], item->types, item->ntypes);
		for (j = 0; j < item->ntypes && item->ntags == 0; j++)
			if (TagDefinitionOf(item->types[j]) == NULL)
				report_unknown_type(item->types[j]);
	}
}

static void
report_unknown_type(const text *event_type)
{
	char	   *type = text_to_cstring(event_type);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event type \"%s\" is not known to %s", type, "define_tags()"),
			 errdetail("An item without tags asks for all events of its types, which whoever appends one has to know."),
			 errhint("SELECT cqrs_es.define_tags(%s) makes it known, with tags or without; or give the item tags.",
					 quote_literal_cstr(type))));
}

/* Would an event with all tags of the item match it by its type? */
bool
TagQueryItemHasType(const TagQueryItem *item, const text *event_type)
{
	return item->ntypes == 0 ||
		bsearch(&event_type, item->types, item->ntypes, sizeof(text *), compare_texts) != NULL;
}
