/*-------------------------------------------------------------------------
 * deferred_constraint.c
 *	  Constraints that are checked at commit, checked earlier: foreign keys, unique
 *	  constraints and constraint triggers that are INITIALLY DEFERRED.
 *
 * Who runs what others wrote, and has to tell whose fault an error is, or may let
 * nothing of theirs wait until it would run with somebody else's rights, cannot leave
 * the check to the commit.  SET CONSTRAINTS is what the server has for it: what is set to
 * IMMEDIATE is checked at once if it waits, and from then on at the end of each
 * statement.
 *
 * That holds to the end of the transaction, and what was before cannot be asked for.  So
 * constraints are set by name, only those that are deferred from the beginning, and set
 * to DEFERRED again, which is what they were unless the transaction had said otherwise
 * itself.  A subtransaction that aborts puts them back by itself.
 *
 * A name stands for all constraints of that name in a schema.  One that others bear
 * which are not deferred is left alone, as are those of schemas that the
 * current role may not use, and of temporary tables: they are checked at commit.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/deferred_constraint.h"
#include "base/internal_query.h"
#include "base/registry.h"

/* A name of constraints that are deferred from the beginning. */
typedef struct DeferredName
{
	char	   *schema;
	char	   *name;
	int			ntables;		/* that they are on, or refer to; 0 where there is none */
	Oid		   *tables;
} DeferredName;

/* All of the database, and how often constraints or schemas had changed when they were read. */
static List *names = NIL;
static MemoryContext names_memory = NULL;
static uint64 names_changes = 0;
static uint64 changes = 1;

static List *all_names(void);
static void read_names(void);
static DeferredName *name_of_row(const QueryRow *row);
static bool waits(const DeferredName *name);
static List *constraints_of(const List *all, bool waiting);
static List *usable(List *constraints);
static void set(List *constraints, bool deferred);
static void note_change(Datum arg, int cacheid, uint32 hashvalue);

void
DeferredConstraintInit(void)
{
	CacheRegisterSyscacheCallback(CONSTROID, note_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, note_change, (Datum) 0);
}

/* What waits for the commit now, for DeferredConstraintCheck, in the current memory context. */
List *
DeferredConstraintWaiting(void)
{
	return constraints_of(all_names(), true);
}

/*
 * Check now, with the rights of the current role, what waits for the commit; what is done
 * from then on is deferred again.  Raises what the checks raise: 23503, 23505, 23P01, or
 * anything of a constraint trigger.
 */
void
DeferredConstraintCheck(List *waiting)
{
	List	   *constraints = usable(waiting);

	set(constraints, false);
	set(constraints, true);
}

/*
 * Let nothing new wait until DeferredConstraintRelease gets what this returned, in the
 * current memory context: it is checked at the end of each statement.  What waits
 * already goes on to wait for the commit, and with it all that its constraints are about.
 */
List *
DeferredConstraintHold(void)
{
	List	   *constraints = usable(constraints_of(all_names(), false));

	set(constraints, false);
	return constraints;
}

void
DeferredConstraintRelease(List *held)
{
	set(held, true);
}

/* Good until the catalog is looked at. */
static List *
all_names(void)
{
	if (names_changes != changes)
		read_names();
	return names;
}

static void
read_names(void)
{
	static InternalQuery query = {
		.sql = "SELECT n.nspname::pg_catalog.text AS schema, c.conname::pg_catalog.text AS name,"
		" pg_catalog.array_agg(c.conrelid) OPERATOR(pg_catalog.||) pg_catalog.array_agg(c.confrelid) AS tables"
		" FROM pg_catalog.pg_constraint AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.connamespace"
		" WHERE n.nspname::pg_catalog.text OPERATOR(pg_catalog.!~) '^pg_temp_' AND EXISTS (SELECT FROM pg_catalog.pg_constraint AS d"
		" WHERE d.condeferred AND d.connamespace OPERATOR(pg_catalog.=) c.connamespace AND d.conname OPERATOR(pg_catalog.=) c.conname)"
		" GROUP BY n.nspname, c.conname HAVING pg_catalog.bool_and(c.condeferred) ORDER BY 1, 2"
	};
	uint64		as_of = changes;
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es deferred constraints",
												 ALLOCSET_SMALL_SIZES);
	List	   *found = NIL;
	uint64		n;
	uint64		i;

	SPI_connect();
	n = RegistryRead(&query, NULL);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		MemoryContext spi = MemoryContextSwitchTo(memory);

		found = lappend(found, name_of_row(&row));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();

	MemoryContextSetParent(memory, CacheMemoryContext);
	if (names_memory)
		MemoryContextDelete(names_memory);
	names_memory = memory;
	names = found;
	names_changes = as_of;
}

/* In the current memory context. */
static DeferredName *
name_of_row(const QueryRow *row)
{
	DeferredName *name = palloc(sizeof(DeferredName));
	Datum	   *tables;
	int			i;

	name->schema = InternalQueryText(row, "schema");
	name->name = InternalQueryText(row, "name");
	deconstruct_array(DatumGetArrayTypeP(InternalQueryDatum(row, "tables", NULL)), OIDOID, sizeof(Oid),
					  true, TYPALIGN_INT, &tables, NULL, &name->ntables);
	name->tables = palloc(name->ntables * sizeof(Oid));
	for (i = 0; i < name->ntables; i++)
		name->tables[i] = DatumGetObjectId(tables[i]);
	return name;
}

/* Does anything wait for the commit on a table of these constraints? */
static bool
waits(const DeferredName *name)
{
	int			i;

	for (i = 0; i < name->ntables; i++)
		if (OidIsValid(name->tables[i]) && AfterTriggerPendingOnRel(name->tables[i]))
			return true;
	return false;
}

/*
 * Those for which something waits, or those for which nothing does; as SET CONSTRAINTS
 * wants them, in the current memory context.
 */
static List *
constraints_of(const List *all, bool waiting)
{
	List	   *constraints = NIL;
	ListCell   *lc;

	foreach(lc, all)
	{
		const DeferredName *name = lfirst(lc);

		if (waits(name) == waiting)
			constraints = lappend(constraints, makeRangeVar(pstrdup(name->schema), pstrdup(name->name), -1));
	}
	return constraints;
}

/* Those of schemas that are there, and that the current role may use. */
static List *
usable(List *constraints)
{
	List	   *found = NIL;
	ListCell   *lc;

	foreach(lc, constraints)
	{
		Oid			schema = get_namespace_oid(lfirst_node(RangeVar, lc)->schemaname, true);

		if (OidIsValid(schema) &&
			compat_namespace_aclcheck(schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK)
			found = lappend(found, lfirst(lc));
	}
	return found;
}

static void
set(List *constraints, bool deferred)
{
	ConstraintsSetStmt *stmt = makeNode(ConstraintsSetStmt);

	if (constraints == NIL)
		return;					/* which would mean all there are */
	stmt->constraints = constraints;
	stmt->deferred = deferred;
	AfterTriggerSetState(stmt);
}

static void
note_change(Datum arg, int cacheid, uint32 hashvalue)
{
	changes++;
}
