/*-------------------------------------------------------------------------
 * text.c
 *	  Texts, as arguments and to compare.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "base/text.h"

/*
 * An argument that must be a text of 1 to max_bytes bytes, detoasted.  `what`
 * names it in messages ("aggregate type").  Keys are bounded because they
 * share one index entry, which cannot exceed a third of a page.
 * Raises 22004 (NULL), 22023 (empty), 22001 (too long).
 */
text *
TextArgument(NullableDatum arg, const char *what, int max_bytes)
{
	text	   *value;

	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	value = DatumGetTextPP(arg.value);
	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (VARSIZE_ANY_EXHDR(value) > (Size) max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long", what),
				 errdetail("It has %zu bytes; at most %d are possible.",
						   (Size) VARSIZE_ANY_EXHDR(value), max_bytes)));
	return value;
}

/*
 * The text, if it has at most so many bytes; else as many whole characters of its
 * beginning as leave room for dots behind them, palloc'd.
 */
text *
TextBegin(text *value, int max_bytes)
{
	static const char dots[] = "...";
	int			size = (int) VARSIZE_ANY_EXHDR(value);
	const char *data = VARDATA_ANY(value);
	int			begin;

	if (size <= max_bytes)
		return value;
	begin = pg_mbcliplen(data, size, max_bytes - (int) strlen(dots));
	return cstring_to_text(psprintf("%.*s%s", begin, data, dots));
}
