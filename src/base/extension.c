/*-------------------------------------------------------------------------
 * extension.c
 *	  The extension's own objects in the catalog.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/lsyscache.h"

#include "base/extension.h"

/* The oid of one of our own relations; an error when the extension is gone. */
Oid
ExtensionRelid(const char *relname)
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
