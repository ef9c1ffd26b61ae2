/*-------------------------------------------------------------------------
 * derived_tags.c
 *	  The tags that templates would give an event, without one.
 *
 * For who wants to try templates before they are defined, and for verify_log, which asks
 * of each event whether it has its own; so the templates of the call before are kept.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "tag/tag_list.h"
#include "tag/tag_template.h"

PG_FUNCTION_INFO_V1(cqrs_es_derived_tags);

/* What is kept between calls: templates, and of what they were parsed. */
typedef struct ParsedTemplates
{
	MemoryContext memory;		/* of all this */
	ArrayType  *source;
	int			n;
	TagTemplate *templates;
} ParsedTemplates;

static ParsedTemplates *templates_of(FunctionCallInfo fcinfo, ArrayType *source);
static void parse(ParsedTemplates *parsed, const ArrayType *source);

/*
 * SQL: derived_tags(payload, VARIADIC templates), strict.  NULL where an event with the payload
 * would be refused.  Raises 22023, 22004, 2202E for what are no templates.
 */
Datum
cqrs_es_derived_tags(PG_FUNCTION_ARGS)
{
	Jsonb	   *payload = PG_GETARG_JSONB_P(0);
	ParsedTemplates *parsed = templates_of(fcinfo, PG_GETARG_ARRAYTYPE_P(1));
	TagList		tags = {0};
	Datum	   *datums;
	int			i;

	for (i = 0; i < parsed->n; i++)
		if (!TagTemplateApply(&parsed->templates[i], payload, &tags, NULL))
			PG_RETURN_NULL();
	datums = palloc(Max(tags.n, 1) * sizeof(Datum));
	for (i = 0; i < tags.n; i++)
		datums[i] = PointerGetDatum(tags.tags[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(datums, tags.n, TEXTOID, -1, false, TYPALIGN_INT));
}

static ParsedTemplates *
templates_of(FunctionCallInfo fcinfo, ArrayType *source)
{
	ParsedTemplates *parsed = fcinfo->flinfo->fn_extra;
	MemoryContext memory;

	if (parsed && VARSIZE(parsed->source) == VARSIZE(source) &&
		memcmp(parsed->source, source, VARSIZE(source)) == 0)
		return parsed;
	memory = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "cqrs_es templates", ALLOCSET_SMALL_SIZES);
	fcinfo->flinfo->fn_extra = NULL;
	if (parsed)
		MemoryContextDelete(parsed->memory);
	parsed = MemoryContextAllocZero(memory, sizeof(ParsedTemplates));
	parsed->memory = memory;
	parse(parsed, source);
	fcinfo->flinfo->fn_extra = parsed;
	return parsed;
}

static void
parse(ParsedTemplates *parsed, const ArrayType *source)
{
	MemoryContext caller = MemoryContextSwitchTo(parsed->memory);
	Datum	   *datums;
	bool	   *nulls;
	int			i;

	if (ARR_NDIM(source) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("templates must be a one-dimensional array")));
	parsed->source = (ArrayType *) DatumGetPointer(datumCopy(PointerGetDatum(source), false, -1));
	deconstruct_array(parsed->source, TEXTOID, -1, false, TYPALIGN_INT, &datums, &nulls, &parsed->n);
	parsed->templates = palloc(Max(parsed->n, 1) * sizeof(TagTemplate));
	for (i = 0; i < parsed->n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a template must not be null")));
		TagTemplateParse(&parsed->templates[i], DatumGetTextPP(datums[i]));
	}
	MemoryContextSwitchTo(caller);
}
