/*-------------------------------------------------------------------------
 * boundary_query.c
 *	  The query of a boundary: with pointers into the command, and filled in.
 *
 * It is a query as read_matching takes it, but for its tags, which are templates
 * ('course:{/courseId}') over the command's payload.  With a command they become a query
 * as anybody's:
 *
 *	- an array in the payload makes an item for each of its elements, since an event
 *	  concerns the decision when it has one of them.  (All of them in one item would
 *	  ask for events that have all.)
 *	- where an optional value is lacking, or an array is empty, the item falls away, as
 *	  without the tag alone it would ask for all events of its types.
 *
 * So a boundary for courses and students decides on the students alone, if no courses are
 * named.  That nothing at all is asked for is an error.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "tag/tag_list.h"
#include "tag/tag_query.h"
#include "tag/tag_template.h"
#include "boundary/boundary_query.h"

/* more items than any query may have are not put together */
#define MAX_ITEMS	10000

/* A query that is being filled in. */
typedef struct Filling
{
	JsonbParseState *state;
	const char *boundary;
	int			nitems;
} Filling;

static void parse_item(BoundaryQueryItem *item, Jsonb *json);
static void refuse_pointer(const text *event_type);
static int	parse_texts(Jsonb *item, const char *member, text ***texts);
static void fill_item(Filling *filling, const BoundaryQueryItem *item, Jsonb *keys);
static void put_item(Filling *filling, const BoundaryQueryItem *item, const TagList *choices,
					 const int *chosen);
static void put_texts(JsonbParseState **state, const char *member, text *const *texts, int ntexts);

/*
 * Parse the query that a boundary is declared with, either form; palloc'd in the current
 * context.  Raises what TagQueryParse and TagTemplateParse raise.
 */
BoundaryQuery *
BoundaryQueryParse(Jsonb *query)
{
	BoundaryQuery *result = palloc(sizeof(BoundaryQuery));
	JsonbContainer *items = &query->root;
	JsonbValue	member;
	int			i;

	(void) TagQueryParse(query);
	if (JB_ROOT_IS_OBJECT(query))
	{
		if (getKeyJsonValueFromContainer(items, "items", strlen("items"), &member) == NULL)
			elog(ERROR, "a query without items");
		items = member.val.binary.data;
	}
	result->nitems = JsonContainerSize(items);
	result->items = palloc(result->nitems * sizeof(BoundaryQueryItem));
	for (i = 0; i < result->nitems; i++)
		parse_item(&result->items[i],
				   JsonbValueToJsonb(getIthJsonbValueFromContainer(items, i)));
	return result;
}

static void
parse_item(BoundaryQueryItem *item, Jsonb *json)
{
	text	  **tags;
	int			i;

	item->ntypes = parse_texts(json, "types", &item->types);
	for (i = 0; i < item->ntypes; i++)
		refuse_pointer(item->types[i]);
	item->ntags = parse_texts(json, "tags", &tags);
	item->tags = palloc(Max(item->ntags, 1) * sizeof(TagTemplate));
	for (i = 0; i < item->ntags; i++)
		TagTemplateParse(&item->tags[i], tags[i]);
}

/* 22023 for a type in which somebody means a value of the payload. */
static void
refuse_pointer(const text *event_type)
{
	char	   *type = text_to_cstring(event_type);

	if (strstr(type, "{/") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no event type for a query", type),
				 errdetail("Only tags take values of the payload."),
				 errhint("Write the types as they are, one for each that may come.")));
	pfree(type);
}

/* The texts of a member of an item, palloc'd; none when it is not there. */
static int
parse_texts(Jsonb *item, const char *member, text ***texts)
{
	JsonbValue	array;
	int			n = 0;
	int			i;

	*texts = NULL;
	if (getKeyJsonValueFromContainer(&item->root, member, strlen(member), &array) == NULL ||
		array.type != jbvBinary)
		return 0;
	n = JsonContainerSize(array.val.binary.data);
	*texts = palloc(Max(n, 1) * sizeof(text *));
	for (i = 0; i < n; i++)
	{
		JsonbValue *string = getIthJsonbValueFromContainer(array.val.binary.data, i);

		(*texts)[i] = cstring_to_text_with_len(string->val.string.val, string->val.string.len);
	}
	return n;
}

/*
 * The query for these keys, palloc'd.  Raises QE502 where a value is lacking, 22023 when it
 * asks for nothing, 54000 for too much.
 */
Jsonb *
BoundaryQueryFill(const BoundaryQuery *query, Jsonb *keys, const char *boundary)
{
	Filling		filling = {.state = NULL,.boundary = boundary,.nitems = 0};
	int			i;

	pushJsonbValue(&filling.state, WJB_BEGIN_ARRAY, NULL);
	for (i = 0; i < query->nitems; i++)
		fill_item(&filling, &query->items[i], keys);
	if (filling.nitems == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("boundary \"%s\" asks for no events with these keys", boundary),
				 errdetail("Each item of its query needs a value that is not there.")));
	return JsonbValueToJsonb(pushJsonbValue(&filling.state, WJB_END_ARRAY, NULL));
}

/* An item, once for each choice of one tag from what each of its templates gives. */
static void
fill_item(Filling *filling, const BoundaryQueryItem *item, Jsonb *keys)
{
	TagList    *choices = palloc0(Max(item->ntags, 1) * sizeof(TagList));
	int		   *chosen = palloc0(Max(item->ntags, 1) * sizeof(int));
	char	   *of = psprintf("the payload for boundary \"%s\"", filling->boundary);
	int			i;

	for (i = 0; i < item->ntags; i++)
	{
		(void) TagTemplateApply(&item->tags[i], keys, &choices[i], of);
		if (choices[i].n == 0)
			return;
	}
	do
	{
		CHECK_FOR_INTERRUPTS();
		put_item(filling, item, choices, chosen);
		for (i = item->ntags - 1; i >= 0 && ++chosen[i] == choices[i].n; i--)
			chosen[i] = 0;
	} while (i >= 0);
}

static void
put_item(Filling *filling, const BoundaryQueryItem *item, const TagList *choices,
		 const int *chosen)
{
	text	  **tags = palloc(Max(item->ntags, 1) * sizeof(text *));
	int			i;

	if (++filling->nitems > MAX_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("boundary \"%s\" asks for too much with these keys", filling->boundary),
				 errdetail("An array makes an item of the query for each of its elements.")));
	for (i = 0; i < item->ntags; i++)
		tags[i] = choices[i].tags[chosen[i]];
	pushJsonbValue(&filling->state, WJB_BEGIN_OBJECT, NULL);
	put_texts(&filling->state, "types", item->types, item->ntypes);
	put_texts(&filling->state, "tags", tags, item->ntags);
	pushJsonbValue(&filling->state, WJB_END_OBJECT, NULL);
	pfree(tags);
}

static void
put_texts(JsonbParseState **state, const char *member, text *const *texts, int ntexts)
{
	JsonbValue	string = {.type = jbvString};
	int			i;

	if (ntexts == 0)
		return;
	string.val.string.val = unconstify(char *, member);
	string.val.string.len = strlen(member);
	pushJsonbValue(state, WJB_KEY, &string);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (i = 0; i < ntexts; i++)
	{
		string.val.string.val = VARDATA_ANY(texts[i]);
		string.val.string.len = VARSIZE_ANY_EXHDR(texts[i]);
		pushJsonbValue(state, WJB_ELEM, &string);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}
