/*-------------------------------------------------------------------------
 * lent_session.c
 *	  A session in which code runs of somebody with less rights than who lends it:
 *	  whoever appends, sends a command or rebuilds.
 *
 * Such code runs in what the server calls a security-restricted operation (definer.c).
 * There the server refuses much that would stay in the session and be met later by
 * its owner: temporary tables, prepared statements, cursors that are held.  Two
 * things it leaves open.
 *
 * Temporary objects of other kinds.  The temporary schema stands in front even of
 * pg_catalog where a type is looked up, so a domain pg_temp.text, with a check, would
 * run that check as the owner of the session at the next cast to text; and a function
 * may fit a call better than the one of that name that the owner has made.  What is made
 * there is looked at when it has been made, before anybody can use it, and refused.
 *
 * Cursors of the session.  Any code may fetch from them by their names, and close
 * them and open others of those names; also those of the loops that PL/pgSQL is in.
 * What they show has been opened with the rights of the owner.  They are marked
 * as running meanwhile: then the server refuses to run or to drop them.  That must end in
 * any case, also by an error, before the transaction machinery sees them:
 *
 *		LentSessionBegin(&lent);
 *		PG_TRY();
 *		{
 *			...
 *		}
 *		PG_FINALLY();
 *		{
 *			LentSessionEnd(&lent);
 *		}
 *		PG_END_TRY();
 *
 * Most sessions have none that could be run, and it costs next to nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_constraint_d.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/lent_session.h"

static object_access_hook_type previous_access_hook = NULL;

static void look_at_access(ObjectAccessType access, Oid class, Oid object, int subobject, void *arg);
static bool is_made_temporary(Oid class, Oid object);
static bool is_of_table(HeapTuple type);
static List *hide_cursors(void);
static MemoryContext memory_of_portals(void);

void
LentSessionInit(void)
{
	previous_access_hook = object_access_hook;
	object_access_hook = look_at_access;
}

/*-------------------------------------------------------------------------
 * temporary objects
 *-------------------------------------------------------------------------
 */

/* 42501 for one that is made where the server would refuse a temporary table. */
static void
look_at_access(ObjectAccessType access, Oid class, Oid object, int subobject, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, class, object, subobject, arg);
	if (access == OAT_POST_CREATE && subobject == 0 && InSecurityRestrictedOperation() &&
		is_made_temporary(class, object))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot create temporary object within security-restricted operation")));
}

/*
 * Is what has just been made, and is in no cache yet, in a temporary schema?  Not
 * asked of tables, to which the server sees, nor of their constraints and the types of their
 * rows: it makes such itself when it rewrites a temporary table or builds its indexes.
 */
static bool
is_made_temporary(Oid class, Oid object)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	if (class == RelationRelationId || class == ConstraintRelationId ||
		!is_objectclass_supported(class) ||
		get_object_attnum_namespace(class) == InvalidAttrNumber ||
		get_object_attnum_oid(class) == InvalidAttrNumber)
		return false;
	rel = table_open(class, AccessShareLock);
	ScanKeyInit(&key, get_object_attnum_oid(class), BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object));
	scan = systable_beginscan(rel, get_object_oid_index(class), true, SnapshotSelf, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)) &&
		!(class == TypeRelationId && is_of_table(tuple)))
	{
		bool		isnull;

		found = isAnyTempNamespace(DatumGetObjectId(heap_getattr(tuple, get_object_attnum_namespace(class),
																 RelationGetDescr(rel), &isnull)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* A type of rows, or an array of what was looked at before? */
static bool
is_of_table(HeapTuple type)
{
	Form_pg_type form = (Form_pg_type) GETSTRUCT(type);

	return form->typtype == TYPTYPE_COMPOSITE || IsTrueArrayType(form);
}

/*-------------------------------------------------------------------------
 * cursors
 *-------------------------------------------------------------------------
 */

/*
 * Put away what must not be touched until LentSessionEnd, which is to be called in any
 * case.  To be called when the role has been switched: does nothing outside of a
 * security-restricted operation.  In the current memory context.
 */
void
LentSessionBegin(LentSession *lent)
{
	lent->cursors = InSecurityRestrictedOperation() ? hide_cursors() : NIL;
}

void
LentSessionEnd(LentSession *lent)
{
	ListCell   *lc;

	foreach(lc, lent->cursors)
		((Portal) lfirst(lc))->status = PORTAL_READY;
	lent->cursors = NIL;
}

/*
 * Mark those that could be run as running; they stay where they are while they are.
 *
 * The server keeps them in a table of its own, of which it gives the names: by a function
 * that makes rows of them, or, quicker, by the names of their memory.
 */
static List *
hide_cursors(void)
{
	List	   *hidden = NIL;
	MemoryContext memory;
	ListCell   *lc;

	for (memory = memory_of_portals()->firstchild; memory != NULL; memory = memory->nextchild)
	{
		Portal		portal = memory->ident == NULL ? NULL :
			GetPortalByName(strcmp(memory->ident, "<unnamed>") == 0 ? "" : memory->ident);

		if (PortalIsValid(portal) && portal->status == PORTAL_READY)
			hidden = lappend(hidden, portal);
	}
	foreach(lc, hidden)
		((Portal) lfirst(lc))->status = PORTAL_ACTIVE;
	return hidden;
}

/* It is there for as long as the session. */
static MemoryContext
memory_of_portals(void)
{
	static MemoryContext found = NULL;
	MemoryContext memory;

	for (memory = TopMemoryContext->firstchild; found == NULL && memory != NULL; memory = memory->nextchild)
		if (strcmp(memory->name, "TopPortalContext") == 0)
			found = memory;
	if (found == NULL)
		elog(ERROR, "could not find the memory of cursors");
	return found;
}
