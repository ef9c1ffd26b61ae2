/*-------------------------------------------------------------------------
 * text.h
 *	  Texts, as arguments and to compare.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TEXT_H
#define CQRS_ES_TEXT_H

#include "base/compat.h"

extern text *TextArgument(NullableDatum arg, const char *what, int max_bytes);
extern text *TextBegin(text *value, int max_bytes);

/* Bytewise equality of two untoasted texts. */
static inline bool
TextEqual(const text *a, const text *b)
{
	Size		size = VARSIZE_ANY_EXHDR(a);

	return size == VARSIZE_ANY_EXHDR(b) && memcmp(VARDATA_ANY(a), VARDATA_ANY(b), size) == 0;
}

#endif							/* CQRS_ES_TEXT_H */
