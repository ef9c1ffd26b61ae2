/*-------------------------------------------------------------------------
 * extension.c
 *	  The extension's own objects in the catalog.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/extension.h"

/* The oid of one of our own relations; InvalidOid when it, or the extension, is not there. */
Oid
ExtensionFindRelid(const char *relname)
{
	Oid			nspoid = get_namespace_oid(CQRS_ES_SCHEMA, true);

	return OidIsValid(nspoid) ? get_relname_relid(relname, nspoid) : InvalidOid;
}

/* The same; an error when the extension is gone. */
Oid
ExtensionRelid(const char *relname)
{
	Oid			relid = ExtensionFindRelid(relname);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", CQRS_ES_SCHEMA, relname),
				 errhint("Run CREATE EXTENSION cqrs_es in this database.")));
	return relid;
}

/* As the catalog is now, and its oid; in a transaction. */
ExtensionState
ExtensionLook(Oid *extension)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ExtensionState state = EXTENSION_ABSENT;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	*extension = InvalidOid;
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(CQRS_ES_SCHEMA));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		version = heap_getattr(tuple, Anum_pg_extension_extversion,
										   RelationGetDescr(extensions), &isnull);

		*extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		state = strcmp(TextDatumGetCString(version), CQRS_ES_VERSION) == 0 ?
			EXTENSION_PRESENT : EXTENSION_OTHER_VERSION;
	}
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return state;
}
