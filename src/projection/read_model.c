/*-------------------------------------------------------------------------
 * read_model.c
 *	  Tables that projections keep: what may be one, how they are locked against
 *	  writers and emptied for a rebuild, and that they are not dropped meanwhile.
 *
 * Beside this: how a registry names them (registry_name.c); which of them an event
 * locks as for writing, and what that lock is for (projection.c); what a table of
 * states has to be like (state_projection.c).
 *
 * Who creates a projection locks them before it looks at them, so a drop either
 * waits and finds the projection, or is waited for (registry.c has the order of
 * locks).  A restore may drop them (restore.c).  (The event trigger's own function
 * is in sql/980_protect.sql.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/distribution.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/registry_name.h"
#include "base/restore.h"
#include "base/role_switch.h"
#include "log/events.h"
#include "projection/read_model.h"

/* what it takes to make a table a read model */
#define READ_MODEL_RIGHTS (ACL_INSERT | ACL_UPDATE | ACL_DELETE)

static void refuse_drop(void);
static bool find_shared(const char *projection, char **other, char **table);
static ArrayType *array_of(const Oid *tables, int n);
static void refuse_dependents(const Oid *read_models, int n, const char *projection);

void
ReadModelInit(void)
{
	RegistryFunctionAlsoCheckDrops(refuse_drop);
}

/* The elements of an array of regclass without nulls, palloc'd. */
Oid *
ReadModelOids(ArrayType *array, int *n)
{
	Datum	   *elements;
	Oid		   *tables;
	int			i;

	deconstruct_array(array, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &elements, NULL, n);
	tables = palloc(Max(*n, 1) * sizeof(Oid));
	for (i = 0; i < *n; i++)
		tables[i] = DatumGetObjectId(elements[i]);
	return tables;
}

/*
 * Tables that the owner of a projection may write in every way: appending sessions will lock
 * them, and a rebuild empties them and fills them again.  They are locked to the
 * end of the transaction (AccessShareLock), so that nobody drops them meanwhile.
 * Raises 2202E, 22004, 42P01, 42809, 42501, and QE608 where the log is distributed and one of them is
 * not so along with it.  Returns each of them once, in an array that
 * begins at 1.
 */
ArrayType *
ReadModelsCheck(ArrayType *read_models, Oid owner)
{
	Oid		   *tables;
	int			n;
	int			i;

	if (ARR_NDIM(read_models) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("read_models must be a one-dimensional array")));
	if (array_contains_nulls(read_models))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("read_models must not contain nulls")));
	tables = ReadModelOids(read_models, &n);
	/* who drops one waits, and finds that it is in use (refuse_drop) */
	qsort(tables, n, sizeof(Oid), oid_cmp);
	for (i = 0; i < n; i++)
		if (OidIsValid(tables[i]))
			LockRelationOid(tables[i], AccessShareLock);
	/* looked at in the order in which they were given */
	tables = ReadModelOids(read_models, &n);
	for (i = 0; i < n; i++)
	{
		char		kind = get_rel_relkind(tables[i]);

		if (kind == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("read model does not exist"),
					 errdetail("There is no table with OID %u.", tables[i])));
		if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is not a table", get_rel_name(tables[i]))));
		if (get_rel_persistence(tables[i]) == RELPERSISTENCE_TEMP)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is a temporary table", get_rel_name(tables[i])),
					 errdetail("Other sessions could not write it.")));
		if (pg_class_aclmask(tables[i], owner, READ_MODEL_RIGHTS, ACLMASK_ALL) != READ_MODEL_RIGHTS)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for table %s", get_rel_name(tables[i])),
					 errdetail("Role \"%s\" owns the projection, and so needs INSERT, UPDATE and DELETE on its read models.",
							   GetUserNameFromId(owner, false))));
		if (get_rel_namespace(tables[i]) == get_namespace_oid(CQRS_ES_SCHEMA, false))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is a table of %s itself",
							get_rel_name(tables[i]), CQRS_ES_SCHEMA),
					 errdetail("To pause the projection would lock it against all writers.")));
		if (tables[i] < FirstNormalObjectId)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("read model \"%s\" is a table of the server", get_rel_name(tables[i])),
					 errdetail("A rebuild would empty it.")));
		if (EventsNode() >= 0 && !DistributionIsAlong(tables[i], ExtensionRelid("events")))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_IN_DISTRIBUTED_LOG),
					 errmsg("read model \"%s\" is not distributed as the log is", get_rel_name(tables[i])),
					 errdetail("Handlers run on the node that stores the event, and can write only to what is stored there, too."),
					 errhint("distribute_read_model() distributes it by the column that has the aggregate id.")));
	}
	return array_of(tables, n);
}

/* Each table once, in the order in which they were given. */
static ArrayType *
array_of(const Oid *tables, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	List	   *seen = NIL;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (list_member_oid(seen, tables[i]))
			continue;
		elements[list_length(seen)] = ObjectIdGetDatum(tables[i]);
		seen = lappend_oid(seen, tables[i]);
	}
	return construct_array(elements, list_length(seen), REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT);
}

/*
 * Take the lock of a projection, all of its tables, against writers: waits for all who
 * have written with it (ShareRowExclusiveLock, to the end of the transaction).  Its
 * owner must still have what LOCK TABLE would ask for, on a read model (42501);
 * where that role is gone, who calls, which only a superuser can then.
 */
void
ReadModelsLock(const Oid *locks, int nlocks, Oid owner)
{
	Oid			registry = ExtensionRelid("projections");
	int			i;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		owner = GetUserId();
	for (i = 0; i < nlocks; i++)
	{
		Oid			table = locks[i];
		bool		is_missing = false;

		if (table != registry &&
			pg_class_aclcheck_ext(table, owner, COMPAT_LOCK_RIGHTS, &is_missing) != ACLCHECK_OK &&
			!is_missing)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(table));
		LockRelationOid(table, ShareRowExclusiveLock);
	}
}

/*
 * 55000 when another projection keeps one of the tables, too, or a partition of
 * one, or what inherits from it: with somebody else's rows in it a table cannot be
 * emptied for this one alone.
 */
void
ReadModelsRefuseShared(const char *projection)
{
	char	   *other;
	char	   *table;

	if (find_shared(projection, &other, &table))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot be rebuilt alone", projection),
				 errdetail("Projection \"%s\" keeps table %s, too.", other, table),
				 errhint("Let one projection keep the table, or each a table of its own.")));
}

/* WARNING of the same, when a projection is created. */
void
ReadModelsWarnShared(const char *projection)
{
	char	   *other;
	char	   *table;

	if (find_shared(projection, &other, &table))
		ereport(WARNING,
				(errmsg("projection \"%s\" keeps table %s, too", other, table),
				 errdetail("Neither of the two can be rebuilt, since that would empty the table of the other."),
				 errhint("Let one projection keep the table, or each a table of its own.")));
}

/* Which other projection keeps a table of this one, and which table; palloc'd. */
static bool
find_shared(const char *projection, char **other, char **table)
{
	static InternalQuery query = {
		.sql = "WITH RECURSIVE kept AS (SELECT p.name, t::pg_catalog.oid AS relid"
		" FROM cqrs_es.projections AS p,"
		" LATERAL pg_catalog.unnest(" REGISTRY_READ_MODELS "::pg_catalog.regclass[]) AS t),"
		" reached AS (SELECT k.name, k.relid, false AS inherits FROM kept AS k UNION"
		" SELECT r.name, c.oid, r.inherits OR NOT c.relispartition"
		" FROM reached AS r JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) r.relid"
		" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid)"
		" SELECT o.name AS other, o.relid::pg_catalog.regclass::pg_catalog.text AS table_name"
		" FROM reached AS p JOIN reached AS o ON o.relid OPERATOR(pg_catalog.=) p.relid"
		" AND o.name OPERATOR(pg_catalog.<>) p.name AND NOT o.inherits"
		" WHERE p.name OPERATOR(pg_catalog.=) $1 AND p.relid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid"
		" ORDER BY o.name, EXISTS (SELECT FROM kept AS k"
		" WHERE k.name OPERATOR(pg_catalog.=) $1 AND k.relid OPERATOR(pg_catalog.=) p.relid) DESC, 2 LIMIT 1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);
	MemoryContext caller = CurrentMemoryContext;
	bool		found;

	SPI_connect();
	found = RegistryRead(&query, &value) > 0;
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		*other = InternalQueryText(&row, "other");
		*table = InternalQueryText(&row, "table_name");
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return found;
}

/*
 * Delete all rows of the read models, with the rights of the projection's owner;
 * in one statement, so that foreign keys among them are content.  Row security
 * that would leave some behind is an error.  They are deleted, not truncated: that
 * would lock out readers.  Tables and partitions are locked to the end of the
 * transaction, against those who would change what hangs on them
 * (ShareUpdateExclusiveLock).  Raises 42P01 when a table is gone, 55000 when more
 * would change than these tables.
 */
void
ReadModelsEmpty(const Oid *read_models, int n, const Definer *owner, const char *projection)
{
	StringInfoData sql;
	RoleSwitch	saved;
	int			rc;
	int			i;

	refuse_dependents(read_models, n, projection);
	initStringInfo(&sql);
	for (i = 0; i < n; i++)
	{
		Oid			table = read_models[i];
		char	   *name = get_rel_name(table);

		/* it was there when it was locked, and is protected */
		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("a read model of projection \"%s\" does not exist any more",
							projection),
					 errhint("Drop the projection, and create it anew with the tables that there are.")));
		if (i < n - 1)
			appendStringInfo(&sql, "%s _%d AS (", i == 0 ? "WITH" : ",", i);
		appendStringInfo(&sql, " DELETE FROM %s",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
													name));
		if (i < n - 1)
			appendStringInfoChar(&sql, ')');
	}

	SPI_connect();
	saved = DefinerSwitchRole(owner->role, owner->search_path);
	RoleSwitchRequireAllRows();
	rc = SPI_execute(sql.data, false, 0);
	if (rc < 0)
		elog(ERROR, "unexpected result of \"%s\": %s", sql.data, SPI_result_code_string(rc));
	RoleSwitchBack(&saved);
	SPI_finish();
}

/*
 * 55000 when to delete the rows of these tables would change other tables, or do what
 * nobody can foresee, and say what that is.  The tables of a projection and their
 * partitions are its own; so is what refers from one of them to another.  Locks them
 * before it looks.
 *
 * A foreign key or trigger on a partition is one of its own beside that of the
 * partitioned table; the one is named.
 */
static void
refuse_dependents(const Oid *read_models, int n, const char *projection)
{
	static InternalQuery query = {
		.sql = "WITH RECURSIVE own AS (SELECT t AS relid FROM pg_catalog.unnest($1) AS t UNION"
		" SELECT c.oid FROM own JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) own.relid"
		" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid WHERE c.relispartition),"
		" keys AS (SELECT c.oid, c.conname, c.conrelid, c.confdeltype, c.conparentid FROM pg_catalog.pg_constraint AS c"
		" WHERE c.contype OPERATOR(pg_catalog.=) 'f' AND c.confdeltype IN ('c', 'n', 'd')"
		" AND c.confrelid IN (SELECT relid FROM own) AND c.conrelid NOT IN (SELECT relid FROM own)"
		" AND EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgconstraint OPERATOR(pg_catalog.=) c.oid"
		" AND t.tgrelid OPERATOR(pg_catalog.=) c.confrelid AND t.tgenabled IN ('O', 'A')"
		" AND t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 8 OPERATOR(pg_catalog.<>) 0)),"
		" triggers AS (SELECT t.oid, t.tgname, t.tgrelid, t.tgparentid FROM pg_catalog.pg_trigger AS t"
		" WHERE t.tgrelid IN (SELECT relid FROM own) AND NOT t.tgisinternal"
		" AND t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 8 OPERATOR(pg_catalog.<>) 0"
		" AND t.tgenabled IN ('O', 'A')"
		/* statement triggers of a partition do not fire */
		" AND (t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 1 OPERATOR(pg_catalog.=) 1"
		" OR t.tgrelid OPERATOR(pg_catalog.=) ANY ($1)))"
		" SELECT d.what FROM (SELECT pg_catalog.format(CASE k.confdeltype"
		" WHEN 'c' THEN 'Foreign key \"%s\" of table %s would delete its rows (ON DELETE CASCADE).'"
		" WHEN 'n' THEN 'Foreign key \"%s\" of table %s would change its rows (ON DELETE SET NULL).'"
		" ELSE 'Foreign key \"%s\" of table %s would change its rows (ON DELETE SET DEFAULT).' END,"
		" k.conname, k.conrelid::pg_catalog.regclass) AS what"
		" FROM keys AS k WHERE k.conparentid NOT IN (SELECT oid FROM keys)"
		" UNION ALL SELECT pg_catalog.format('Table %s inherits from %s: its rows would be deleted with those.',"
		" i.inhrelid::pg_catalog.regclass, i.inhparent::pg_catalog.regclass)"
		" FROM pg_catalog.pg_inherits AS i"
		" WHERE i.inhparent IN (SELECT relid FROM own) AND i.inhrelid NOT IN (SELECT relid FROM own)"
		" UNION ALL SELECT pg_catalog.format('Rule \"%s\" of table %s says what else happens on DELETE.',"
		" r.rulename, r.ev_class::pg_catalog.regclass) FROM pg_catalog.pg_rewrite AS r"
		" WHERE r.ev_class OPERATOR(pg_catalog.=) ANY ($1)"
		" AND r.ev_type OPERATOR(pg_catalog.=) '4' AND r.ev_enabled IN ('O', 'A')"
		" UNION ALL SELECT pg_catalog.format('Trigger \"%s\" of table %s would run on DELETE.',"
		" t.tgname, t.tgrelid::pg_catalog.regclass)"
		" FROM triggers AS t WHERE t.tgparentid NOT IN (SELECT oid FROM triggers)) AS d ORDER BY 1",
		.nargs = 1,.argtypes = {OIDARRAYOID}
	};
	Datum	   *tables = palloc(n * sizeof(Datum));
	Datum		value;
	StringInfoData found;
	uint64		nfound;
	int			i;

	for (i = 0; i < n; i++)
	{
		LockRelationOid(read_models[i], ShareUpdateExclusiveLock);
		tables[i] = ObjectIdGetDatum(read_models[i]);
	}
	for (i = 0; i < n; i++)
		(void) find_all_inheritors(read_models[i], ShareUpdateExclusiveLock, NULL);
	value = PointerGetDatum(construct_array(tables, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));

	SPI_connect();
	nfound = RegistryRead(&query, &value);
	if (nfound > 0)
	{
		initStringInfo(&found);
		for (i = 0; i < (int) nfound; i++)
		{
			QueryRow	row = InternalQueryRow(i);

			appendStringInfo(&found, "%s%s", i == 0 ? "" : "\n", InternalQueryText(&row, "what"));
		}
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot be rebuilt: it would change more than its read models",
						projection),
				 errdetail_internal("%s", found.data),
				 errhint("Let foreign keys on read models take no action, or drop or disable these for the rebuild. A table that belongs to the projection can be one of its read models.")));
	}
	SPI_finish();
}

/*
 * How many rows of read models this session has inserted, updated or deleted, as the server
 * counts them (track_counts) until they are reported: good for a difference within one
 * transaction.  -1 where it does not, or counts them for partitions instead.
 */
int64
ReadModelsRowsChanged(const Oid *read_models, int n)
{
	static const PGFunction counts[] = {pg_stat_get_xact_tuples_inserted,
		pg_stat_get_xact_tuples_updated, pg_stat_get_xact_tuples_deleted};
	int64		rows = 0;
	int			i;

	if (!pgstat_track_counts || n == 0)
		return -1;
	for (i = 0; i < n; i++)
	{
		size_t		j;

		if (get_rel_relkind(read_models[i]) != RELKIND_RELATION)
			return -1;
		for (j = 0; j < lengthof(counts); j++)
			rows += DatumGetInt64(DirectFunctionCall1(counts[j], ObjectIdGetDatum(read_models[i])));
	}
	return rows;
}

/*
 * On sql_drop: 2BP01 when a table is dropped that a projection keeps; a restore is told
 * of it only.
 */
static void
refuse_drop(void)
{
	static InternalQuery query = {
		.sql = "SELECT d.object_identity AS table_name, p.name AS projection"
		" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
		" CROSS JOIN cqrs_es.projections AS p"
		" CROSS JOIN LATERAL pg_catalog.generate_subscripts(p.read_model_names, 1) AS i"
		" WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND d.objsubid OPERATOR(pg_catalog.=) 0 AND d.object_type OPERATOR(pg_catalog.=) 'table'"
		" AND (d.objid OPERATOR(pg_catalog.=) p.read_models[i]"
		"  OR d.address_names[1] OPERATOR(pg_catalog.=) p.read_model_names[i][1]"
		"  AND d.address_names[2] OPERATOR(pg_catalog.=) p.read_model_names[i][2]"
		"  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS t WHERE t.oid OPERATOR(pg_catalog.=) p.read_models[i]))"
		" ORDER BY 1, 2 LIMIT 1",
		.nargs = 0
	};

	/* the extension itself may be what is dropped */
	if (!OidIsValid(ExtensionFindRelid("projections")))
		return;

	SPI_connect();
	if (RegistryRead(&query, NULL) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		char	   *projection = InternalQueryText(&row, "projection");
		bool		restores = RestoreDrops();

		ereport(restores ? NOTICE : ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 restores ?
				 errmsg("a projection keeps table %s", InternalQueryText(&row, "table_name")) :
				 errmsg("cannot drop table %s because a projection keeps it",
						InternalQueryText(&row, "table_name")),
				 errdetail("It is projection \"%s\".", projection),
				 errhint("Drop that first, with SELECT cqrs_es.drop_projection(%s).",
						 quote_literal_cstr(projection))));
	}
	SPI_finish();
}
