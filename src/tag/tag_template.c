/*-------------------------------------------------------------------------
 * tag_template.c
 *	  'course:{/courseId}': a tag with values of the payload in it.
 *
 * What stands in braces is a JSON pointer (RFC 6901) into the payload as it is stored.  A
 * string, number or boolean is put in as ->> would give it, of an array each
 * element, so that there are several tags; of two arrays in a template there is
 * one for each pair.  An empty array gives none.  Where the pointer leads nowhere, or to null,
 * there is no value, which is an error, for an event without the tag would be overlooked
 * by decisions later; but not when the pointer ends in a question mark: then there is no
 * tag.  Something else that is no value, as an object, or an array with null in it, is an error in
 * any case: somebody meant it to give a tag.  Braces themselves are written twice.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/errors.h"
#include "log/events.h"
#include "tag/tag_template.h"

/* Texts that a template has given so far. */
typedef struct Texts
{
	int			n;
	StringInfoData *texts;
} Texts;

static void add_literal(TagTemplate *result, StringInfo literal);
static void add_part(TagTemplate *result, const TagTemplatePart *part);
static const char *parse_value(TagTemplate *result, const char *begin);
pg_noreturn static void refuse_template(const char *source, const char *detail);
static bool values_at(const TagTemplatePart *part, Jsonb *payload, bool raise, int *nvalues,
					  char ***values);
static void free_values(char **values, int nvalues);
static void free_texts(const Texts *texts);
static bool is_there(const TagTemplatePart *part, Jsonb *payload);
static bool elements_of(JsonbContainer *array, bool raise, int *nvalues, char ***values);
static char *scalar_text(const JsonbValue *value);
static bool append_to_all(Texts *texts, char *const *values, int nvalues);
static bool add_tags(const TagTemplate *template, const Texts *texts, TagList *tags, const char *of);
pg_noreturn static void report_missing(const TagTemplate *template, const char *of,
									   const char *detail, const char *hint);
pg_noreturn static void report_no_value(const TagTemplate *template, const TagTemplatePart *part,
										bool is_there, const char *of);

/*-------------------------------------------------------------------------
 * parsing
 *-------------------------------------------------------------------------
 */

/* Parse a template; 22023 for one that is none.  Palloc'd. */
void
TagTemplateParse(TagTemplate *result, const text *source)
{
	const char *c;
	StringInfoData literal;

	memset(result, 0, sizeof(TagTemplate));
	result->source = text_to_cstring(source);
	if (result->source[0] == '\0')
		refuse_template(result->source, "It is empty.");
	initStringInfo(&literal);
	for (c = result->source; *c != '\0';)
	{
		if ((*c == '{' || *c == '}') && c[1] == *c)
		{
			appendStringInfoChar(&literal, *c);
			c += 2;
			continue;
		}
		if (*c == '}')
			refuse_template(result->source, "A brace is closed that was not opened.");
		if (*c != '{')
		{
			appendStringInfoChar(&literal, *c++);
			continue;
		}
		add_literal(result, &literal);
		c = parse_value(result, c + 1);
	}
	add_literal(result, &literal);
	if (strlen(result->source) > EVENT_TAG_MAX_BYTES)
		refuse_template(result->source,
						psprintf("It is longer than %d bytes, as long as a tag can be.", EVENT_TAG_MAX_BYTES));
	pfree(literal.data);
}

/* So all of an array; see tag_template.h. */
TagTemplate *
TagTemplateParseAll(ArrayType *templates, int *n)
{
	TagTemplate *result;
	Datum	   *sources;
	int			i;

	deconstruct_array(templates, TEXTOID, -1, false, TYPALIGN_INT, &sources, NULL, n);
	result = palloc(Max(*n, 1) * sizeof(TagTemplate));
	for (i = 0; i < *n; i++)
		TagTemplateParse(&result[i], DatumGetTextPP(sources[i]));
	return result;
}

/* Add the characters that have come together, if any, and begin anew. */
static void
add_literal(TagTemplate *result, StringInfo literal)
{
	TagTemplatePart part = {0};

	if (literal->len == 0)
		return;
	part.literal = pstrdup(literal->data);
	add_part(result, &part);
	resetStringInfo(literal);
}

static void
add_part(TagTemplate *result, const TagTemplatePart *part)
{
	result->parts = result->parts == NULL ? palloc(sizeof(TagTemplatePart)) :
		repalloc(result->parts, (result->nparts + 1) * sizeof(TagTemplatePart));
	result->parts[result->nparts++] = *part;
}

/* Add a value, whose pointer begins here; returns what is behind its brace. */
static const char *
parse_value(TagTemplate *result, const char *begin)
{
	const char *end = strpbrk(begin, "{}");
	TagTemplatePart part = {0};

	if (end == NULL || *end != '}')
		refuse_template(result->source, "A brace is opened and not closed.");
	part.is_optional = end > begin && end[-1] == '?';
	part.pointer = pnstrdup(begin, end - begin - (part.is_optional ? 1 : 0));
	if (part.pointer[0] != '/')
		refuse_template(result->source,
						"What stands in braces is a JSON pointer into the payload, which begins with a slash.");
	if (part.is_optional && end[-2] == '?')
		refuse_template(result->source, "The question mark behind a pointer is written once.");
	if (!JsonPointerParse(&part.path, part.pointer))
		refuse_template(result->source, "In a JSON pointer ~ is written as ~0, and / in a key as ~1.");
	add_part(result, &part);
	return end + 1;
}

static void
refuse_template(const char *source, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is no template of a tag", source),
			 errdetail("%s", detail),
			 errhint("Write 'course:{/courseId}', 'course:{/courseId?}' where events may lack it, or a constant text; braces themselves twice.")));
}

/*-------------------------------------------------------------------------
 * applying
 *-------------------------------------------------------------------------
 */

/* Add the tags that a template gives; see tag_template.h.  Raises QE502, 22001, 54000. */
bool
TagTemplateApply(const TagTemplate *template, Jsonb *payload, TagList *tags, const char *of)
{
	Texts		texts = {.n = 1,.texts = palloc(sizeof(StringInfoData))};
	bool		has_value = true;
	bool		done = true;
	int			i;

	initStringInfo(&texts.texts[0]);
	for (i = 0; i < template->nparts && has_value && done; i++)
	{
		const TagTemplatePart *part = &template->parts[i];
		char	  **values = (char **) &part->literal;
		int			nvalues = 1;

		if (part->literal == NULL)
			has_value = values_at(part, payload, of != NULL, &nvalues, &values);
		if (!has_value && (!part->is_optional || is_there(part, payload)))
		{
			if (of)
				report_no_value(template, part, is_there(part, payload), of);
			done = false;
		}
		if (has_value)
			done = append_to_all(&texts, values, nvalues);
		if (!done && of)
			TagListReportTooMany();
		if (part->literal == NULL)
			free_values(values, nvalues);
	}
	if (has_value && done)
		done = add_tags(template, &texts, tags, of);
	free_texts(&texts);
	return done;
}

static void
free_values(char **values, int nvalues)
{
	int			i;

	for (i = 0; i < nvalues; i++)
		if (values[i])
			pfree(values[i]);
	if (values)
		pfree(values);
}

static void
free_texts(const Texts *texts)
{
	int			i;

	for (i = 0; i < texts->n; i++)
		pfree(texts->texts[i].data);
	pfree(texts->texts);
}

/*
 * The values at the part's pointer as texts, to be freed in any case; false when there is none, or
 * unless to `raise` that, when there are too many.
 */
static bool
values_at(const TagTemplatePart *part, Jsonb *payload, bool raise, int *nvalues, char ***values)
{
	JsonbValue	value = {.type = jbvNull};

	*nvalues = 0;
	*values = NULL;
	if (!JsonPointerFind(&part->path, payload, &value))
		return false;
	if (value.type == jbvBinary)
		return JsonContainerIsArray(value.val.binary.data) &&
			elements_of(value.val.binary.data, raise, nvalues, values);
	*nvalues = 1;
	*values = palloc(sizeof(char *));
	(*values)[0] = scalar_text(&value);
	return (*values)[0] != NULL;
}

/* Is there anything but null at the part's pointer? */
static bool
is_there(const TagTemplatePart *part, Jsonb *payload)
{
	JsonbValue	value = {.type = jbvNull};

	return JsonPointerFind(&part->path, payload, &value) && value.type != jbvNull;
}

/* All elements as texts; false when one of them is no value, or there are too many. */
static bool
elements_of(JsonbContainer *array, bool raise, int *nvalues, char ***values)
{
	int			i;

	if (JsonContainerSize(array) > TAG_LIST_MAX)
	{
		if (raise)
			TagListReportTooMany();
		return false;
	}
	*nvalues = JsonContainerSize(array);
	*values = palloc0(Max(*nvalues, 1) * sizeof(char *));
	for (i = 0; i < *nvalues; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array, i);

		(*values)[i] = scalar_text(element);
		pfree(element);
		if ((*values)[i] == NULL)
			return false;
	}
	return true;
}

/* As ->> would give it, palloc'd; NULL for null, objects and arrays. */
static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

/* Each of the texts with each of the values behind it; false when these are too many. */
static bool
append_to_all(Texts *texts, char *const *values, int nvalues)
{
	Texts		longer = {.n = texts->n * nvalues};
	int			i;
	int			j;

	if (longer.n > TAG_LIST_MAX)
		return false;
	if (nvalues == 1)
	{
		for (i = 0; i < texts->n; i++)
			appendStringInfoString(&texts->texts[i], values[0]);
		return true;
	}
	longer.texts = palloc(Max(longer.n, 1) * sizeof(StringInfoData));
	for (i = 0; i < texts->n; i++)
		for (j = 0; j < nvalues; j++)
		{
			StringInfo	one = &longer.texts[i * nvalues + j];

			initStringInfo(one);
			appendStringInfo(one, "%s%s", texts->texts[i].data, values[j]);
		}
	free_texts(texts);
	*texts = longer;
	return true;
}

static bool
add_tags(const TagTemplate *template, const Texts *texts, TagList *tags, const char *of)
{
	int			i;

	for (i = 0; i < texts->n; i++)
	{
		if (of == NULL && (texts->texts[i].len == 0 || texts->texts[i].len > EVENT_TAG_MAX_BYTES ||
						   tags->n == TAG_LIST_MAX))
			return false;
		if (texts->texts[i].len == 0)
			report_missing(template, of,
						   psprintf("At %s there is an empty text, and a tag has at least one character.",
									template->parts[0].pointer), NULL);
		if (texts->texts[i].len > EVENT_TAG_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
					 errmsg("tag \"%s\" of %s is too long", template->source, of),
					 errdetail("It has %d bytes; at most %d are possible.",
							   texts->texts[i].len, EVENT_TAG_MAX_BYTES)));
		TagListAdd(tags, cstring_to_text_with_len(texts->texts[i].data, texts->texts[i].len));
	}
	return true;
}

/* QE502 for a part that gives no text. */
static void
report_no_value(const TagTemplate *template, const TagTemplatePart *part, bool is_there,
				const char *of)
{
	if (is_there)
		report_missing(template, of,
					   psprintf("What is at %s is not a text, a number, a boolean or an array of these.",
								part->pointer), NULL);
	report_missing(template, of,
				   psprintf("At %s there is nothing; there must be a text, a number, a boolean or an array of these.",
							part->pointer),
				   psprintf("Where it may be lacking, and is to give no tag then, write {%s?}.", part->pointer));
}

/* QE502; the hint may be NULL. */
static void
report_missing(const TagTemplate *template, const char *of, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_TAG_WITHOUT_VALUE),
			 errmsg("%s has no value for tag \"%s\"", of, template->source),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/*-------------------------------------------------------------------------
 * matching
 *-------------------------------------------------------------------------
 */

/* Could the template give this tag?  Each value stands for any characters. */
bool
TagTemplateCouldGive(const TagTemplate *template, const text *tag)
{
	const char *c = VARDATA_ANY(tag);
	const char *end = c + VARSIZE_ANY_EXHDR(tag);
	bool		after_value = false;
	int			i;

	for (i = 0; i < template->nparts; i++)
	{
		const char *literal = template->parts[i].literal;
		Size		length = literal ? strlen(literal) : 0;

		if (literal == NULL)
		{
			after_value = true;
			continue;
		}
		if ((Size) (end - c) < length)
			return false;
		/* the last one must stand at the end, others as far in front as possible */
		if (after_value && i == template->nparts - 1)
			c = end - length;
		else if (after_value)
			while ((Size) (end - c) > length && memcmp(c, literal, length) != 0)
				c++;
		if (memcmp(c, literal, length) != 0)
			return false;
		c += length;
		after_value = false;
	}
	return after_value || c == end;
}
