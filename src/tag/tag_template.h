/*-------------------------------------------------------------------------
 * tag_template.h
 *	  'course:{/courseId}': a tag with values of the payload in it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_TEMPLATE_H
#define CQRS_ES_TAG_TEMPLATE_H

#include "utils/array.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/json_pointer.h"
#include "tag/tag_list.h"

/* A piece of a template: characters as they stand, or the value at a JSON pointer. */
typedef struct TagTemplatePart
{
	char	   *literal;		/* NULL: a value */
	char	   *pointer;		/* as it is written, for messages */
	JsonPointer path;			/* the same, parsed */
	bool		is_optional;	/* without a value there is no tag */
} TagTemplatePart;

typedef struct TagTemplate
{
	char	   *source;			/* as it is written */
	int			nparts;
	TagTemplatePart *parts;
} TagTemplate;

/*
 * Parse a template; what it points to is palloc'd in the current context.  Raises 22023 for
 * one that is none, 22001 for one whose literals alone are too long for a tag.
 */
extern void TagTemplateParse(TagTemplate *result, const text *source);

/* So all of an array without nulls; palloc'd. */
extern TagTemplate *TagTemplateParseAll(ArrayType *templates, int *n);

/*
 * Add the tags that a template gives for a payload, or for what keys a command brings: none
 * when an optional value is lacking, several where a value is an array.  Raises QE502 when
 * a value is lacking, or what is there is none (`of` says of what, for the message), 22001,
 * 54000.  Where `of` is NULL it is false instead.
 */
extern bool TagTemplateApply(const TagTemplate *template, Jsonb *payload, TagList *tags,
							 const char *of);

/* Could the template give this tag? */
extern bool TagTemplateCouldGive(const TagTemplate *template, const text *tag);

#endif							/* CQRS_ES_TAG_TEMPLATE_H */
