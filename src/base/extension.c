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
#include "catalog/pg_am_d.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/relation_change.h"

/* which SQL is installed; good until the table changes by which an update tells of itself */
static bool is_older = false;
static bool is_known = false;
static const char *told_by = NULL;
static Oid	watched = InvalidOid;
static uint64 changes = 0;

static void relation_changed(Oid relid);

void
ExtensionInit(void)
{
	RelationChangeObserve(relation_changed);
}

/* This table, which all versions have, is changed by every update before anything else (sql/upgrade/step); at Init. */
void
ExtensionToldBy(const char *relname)
{
	told_by = relname;
}

/* The oid of one of our own relations; InvalidOid when it, or the extension, is not there. */
Oid
ExtensionFindRelid(const char *relname)
{
	Oid			nspoid = get_namespace_oid(CQRS_ES_SCHEMA, true);

	return OidIsValid(nspoid) ? get_relname_relid(relname, nspoid) : InvalidOid;
}

/* The same; an error when the extension is gone (42P01), or has not got it yet (55000). */
Oid
ExtensionRelid(const char *relname)
{
	Oid			relid = ExtensionFindRelid(relname);

	if (!OidIsValid(relid))
		ExtensionRefuseOlder();
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", CQRS_ES_SCHEMA, relname),
				 errhint("Run CREATE EXTENSION cqrs_es in this database.")));
	return relid;
}

/* The same; InvalidOid where it comes with an update (older_sql.c). */
Oid
ExtensionRelidIfUpdated(const char *relname)
{
	return ExtensionIsOlder() ? ExtensionFindRelid(relname) : ExtensionRelid(relname);
}

/* The oid of one of our own functions that has no arguments; InvalidOid when it is not there. */
Oid
ExtensionFindFunction(const char *name)
{
	Oid			nspoid = get_namespace_oid(CQRS_ES_SCHEMA, true);
	oidvector  *none = buildoidvector(NULL, 0);

	if (!OidIsValid(nspoid))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(none), ObjectIdGetDatum(nspoid));
}

/*
 * Was nothing ever in this table of ours?  To plan a query that finds nothing would be most of
 * what the first append of a session does; so nothing is opened here, either.  Whoever inserts the
 * first row makes the table grow before that row is committed, and before anybody is told.
 * Raises 42P01.
 */
bool
ExtensionIsBlank(const char *relname)
{
	Oid			relid = ExtensionRelidIfUpdated(relname);
	bool		is_blank = false;
	HeapTuple	tuple;

	/* it comes with the update */
	if (!OidIsValid(relid))
		return true;
	/* while it is locked it keeps its file */
	LockRelationOid(relid, AccessShareLock);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class table = (Form_pg_class) GETSTRUCT(tuple);

		is_blank = table->relkind == RELKIND_RELATION && !table->relhassubclass &&
			table->relam == HEAP_TABLE_AM_OID && table->relpersistence == RELPERSISTENCE_PERMANENT &&
			compat_table_blocks(table) == 0;
		ReleaseSysCache(tuple);
	}
	UnlockRelationOid(relid, AccessShareLock);
	return is_blank;
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

/*
 * Is the SQL of this database not that of the library?  Looks into the catalog, after a
 * change; in a transaction.
 */
bool
ExtensionIsOlder(void)
{
	uint64		started;
	Oid			relid;
	Oid			extension;
	bool		result;

	if (is_known)
		return is_older;
	started = changes;
	watched = InvalidOid;
	relid = ExtensionFindRelid(told_by);
	if (started == changes)
		watched = relid;
	result = ExtensionLook(&extension) == EXTENSION_OTHER_VERSION;
	if (started == changes && OidIsValid(relid))
	{
		is_older = result;
		is_known = true;
	}
	return result;
}

/* 55000 where the SQL is older: for what is new, and for what would write new columns. */
void
ExtensionRefuseOlder(void)
{
	if (ExtensionIsOlder())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension cqrs_es has another version in this database than its library, which is of version %s",
						CQRS_ES_VERSION),
				 errdetail("Until it is updated, events are appended and read, but nothing can be declared or used that is new."),
				 errhint("Run ALTER EXTENSION cqrs_es UPDATE.")));
}

/* The one whose change tells of an update; while it is not known every relation may be it. */
static void
relation_changed(Oid relid)
{
	if (relid == InvalidOid || !OidIsValid(watched) || relid == watched)
	{
		is_known = false;
		changes++;
	}
}
