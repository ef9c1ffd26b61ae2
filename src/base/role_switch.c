/*-------------------------------------------------------------------------
 * role_switch.c
 *	  Another role's rights and search_path for a while.
 *
 * An error leaves role and search_path to the transaction machinery, which restores
 * them at (sub)transaction abort.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "base/extension.h"
#include "base/role_switch.h"

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
	return saved;
}

/* Act as the owner of one of our own tables, for statements of our own; 42P01. */
RoleSwitch
RoleSwitchToOwner(const char *relname)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(ExtensionRelid(relname)));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" was dropped meanwhile", CQRS_ES_SCHEMA, relname)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return RoleSwitchTo(owner, "pg_catalog, pg_temp");
}

/* Settings that were changed meanwhile, by whatever means, are the caller's again. */
void
RoleSwitchBack(const RoleSwitch *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->saved_user, saved->saved_context);
}
