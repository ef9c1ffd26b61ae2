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

/* Bytewise order of two untoasted texts, as that of COLLATE "C": below, 0 or above. */
static inline int
TextCompare(const text *a, const text *b)
{
	Size		a_size = VARSIZE_ANY_EXHDR(a);
	Size		b_size = VARSIZE_ANY_EXHDR(b);
	int			result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(a_size, b_size));

	return result != 0 ? result : (a_size > b_size) - (a_size < b_size);
}

#endif							/* CQRS_ES_TEXT_H */
