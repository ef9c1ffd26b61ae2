/*-------------------------------------------------------------------------
 * role_switch.c
 *	  Another role's rights and search_path for a while.
 *
 * An error leaves role and search_path to the transaction machinery, which restores
 * them at (sub)transaction abort.
 *
 * For those who look at what a definer's code does (compiled_function.c) it is noted
 * which switches are to a definer; what an abort ends is not noted any more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/extension.h"
#include "base/role_switch.h"

/* A definer whose code runs now. */
typedef struct ActingDefiner
{
	Oid			role;
	int			nest_level;		/* of the transaction in which that began */
} ActingDefiner;

/* the innermost last; in TopMemoryContext */
static ActingDefiner *definers = NULL;
static int	ndefiners = 0;
static int	max_definers = 0;

/* all that there have been in this session; in TopMemoryContext */
static List *past_definers = NIL;

static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId id,
								  SubTransactionId parent, void *arg);

void
RoleSwitchInit(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/*
 * Act as `role`, with a search_path, until RoleSwitchBack, the way a SECURITY
 * DEFINER function with a SET clause does.
 */
RoleSwitch
RoleSwitchTo(Oid role, const char *search_path)
{
	RoleSwitch	saved = RoleSwitchStay();

	SetUserIdAndSecContext(role, saved.saved_context | SECURITY_LOCAL_USERID_CHANGE);
	if (strcmp(namespace_search_path, search_path) != 0)
		(void) set_config_option("search_path", search_path, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

/* Stay who one is, with one's own settings; for where the other is an alternative. */
RoleSwitch
RoleSwitchStay(void)
{
	RoleSwitch	saved;

	GetUserIdAndSecContext(&saved.saved_user, &saved.saved_context);
	saved.guc_level = NewGUCNestLevel();
	saved.saved_ndefiners = ndefiners;
	return saved;
}

/* Act as the owner of one of our own tables, for statements of our own; 42P01. */
RoleSwitch
RoleSwitchToOwner(const char *relname)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(ExtensionRelid(relname)));
	Oid			owner;

	/* between the two lookups */
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" was dropped meanwhile", CQRS_ES_SCHEMA, relname)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return RoleSwitchTo(owner, "pg_catalog, pg_temp");
}

/*
 * From now on until RoleSwitchBack a statement from which policies would hide rows fails
 * (42501), those of a table whose owner they are forced on as well.  For who must see all.
 */
void
RoleSwitchRequireAllRows(void)
{
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Settings that were changed meanwhile, by whatever means, are the caller's again. */
void
RoleSwitchBack(const RoleSwitch *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->saved_user, saved->saved_context);
	ndefiners = Min(ndefiners, saved->saved_ndefiners);
}

/* The switch that has just been made is to somebody who defined what runs until it ends. */
void
RoleSwitchNoteDefiner(Oid role)
{
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

	if (ndefiners >= max_definers)
	{
		int			more = Max(2 * max_definers, 8);

		definers = definers ? repalloc(definers, more * sizeof(ActingDefiner)) :
			palloc(more * sizeof(ActingDefiner));
		max_definers = more;
	}
	past_definers = list_append_unique_oid(past_definers, role);
	MemoryContextSwitchTo(caller);
	definers[ndefiners].role = role;
	definers[ndefiners++].nest_level = GetCurrentTransactionNestLevel();
}

/* Is the current role a definer whose code runs, and not one whose function that called? */
bool
RoleSwitchIsDefiner(void)
{
	return ndefiners > 0 && definers[ndefiners - 1].role == GetUserId();
}

/* The definers whose code has run in this session; good until more of it does. */
const List *
RoleSwitchPastDefiners(void)
{
	return past_definers;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		ndefiners = 0;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (ndefiners > 0 && definers[ndefiners - 1].nest_level >= level)
			ndefiners--;
}
