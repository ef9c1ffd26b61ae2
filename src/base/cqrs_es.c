/*-------------------------------------------------------------------------
 * cqrs_es.c
 *	  The few helpers that every concept shares.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/cqrs_es.h"
#include "base/errors.h"

/* The oid of one of our own relations; an error when the extension is gone. */
Oid
CqrsEsRelid(const char *relname)
{
	Oid			nspoid = get_namespace_oid(CQRS_ES_SCHEMA, true);
	Oid			relid = OidIsValid(nspoid) ? get_relname_relid(relname, nspoid) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", CQRS_ES_SCHEMA, relname),
				 errhint("Run CREATE EXTENSION cqrs_es in this database.")));
	return relid;
}

/* "type/id", for messages; palloc'd. */
char *
StreamName(const StreamKey *key)
{
	return psprintf("%s/%s", text_to_cstring(key->aggregate_type),
					text_to_cstring(key->aggregate_id));
}

/*
 * An argument that must be a text of 1 to max_bytes bytes, detoasted.  `what`
 * names it in messages ("aggregate type").  Keys are bounded because they
 * share one index entry, which cannot exceed a third of a page.
 * Raises 22004 (NULL), 22023 (empty), 22001 (too long).
 */
text *
RequiredText(NullableDatum arg, const char *what, int max_bytes)
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
 * Is this an error that code of the user did not make: a race to be retried
 * (40xxx), lack of resources (53xxx), intervention (57xxx), the system (58xxx),
 * the server (XXxxx)?  Such errors are never swallowed or renamed.
 */
bool
ErrorIsNotUsers(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR);
}
