/*-------------------------------------------------------------------------
 * tenancy.c
 *	  Who is calling: the current tenant.
 *
 * A tenant is a text that stands in every key of per-aggregate data; '' is
 * the tenant of those who never heard of tenants.
 *
 * Two things keep tenants apart.  Functions look for the current tenant's
 * events and stamp it on what they append, whoever calls.  Plain SQL meets the
 * policy tenant_isolation, which lets ordinary roles see and write rows of the
 * current tenant; owners, superusers and BYPASSRLS roles are above it, as
 * anywhere in PostgreSQL: dumps and rebuilds need all rows, hence no FORCE.
 *
 * All of it hangs on who may set cqrs_es.tenant_id: superusers, and those who
 * were granted SET on the parameter.  So ALTER ROLE ... SET binds a role.  What
 * a session set before this library was loaded is checked when it is
 * (early_setting.c).
 *
 * Where all events are to have a tenant, cqrs_es.require_tenant makes it an error
 * (QE007) to have forgotten it.  That is asked here, where everybody learns the
 * tenant, so no way past it can be forgotten: functions, column defaults, policies.
 * What concerns all tenants does not ask: dumps, restores, rebuilds, the horizon.
 *
 * Events of a tenant may be appended, imported or replayed by a session that is in
 * another one, or in none.  What runs for an event is in the tenant of the event
 * (TenancyActFor), so that it does the same whoever makes it run.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_operator_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "parser/parse_func.h"
#include "rewrite/rowsecurity.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/setting.h"
#include "base/tenancy.h"
#include "base/text.h"

static char *cqrs_es_tenant_id = NULL;
static bool cqrs_es_require_tenant = false;

PG_FUNCTION_INFO_V1(cqrs_es_current_tenant);

static bool check_tenant_id(char **newval, void **extra, GucSource source);
static text *setting_as_text(void);
static bool is_tenant_policy(const RowSecurityPolicy *policy, AttrNumber tenant_id,
							 Oid current_tenant);
static bool is_tenant_qual(const Expr *qual, AttrNumber tenant_id, Oid current_tenant);

void
TenancyInit(void)
{
	SettingDefineString("cqrs_es.tenant_id",
						"The tenant whose events are appended and read.",
						"Empty for a database without tenants.",
						&cqrs_es_tenant_id, "",
						PGC_SUSET, 0, check_tenant_id);
	SettingDefineBool("cqrs_es.require_tenant",
					  "Nothing is appended or read without a tenant.",
					  "Where it is on, an empty cqrs_es.tenant_id is an error.",
					  &cqrs_es_require_tenant, false,
					  PGC_SUSET, 0);
}

/* Can it be a tenant, also the empty one? */
bool
TenancyIsValid(const char *tenant_id)
{
	return strlen(tenant_id) <= TENANT_MAX_BYTES;
}

static bool
check_tenant_id(char **newval, void **extra, GucSource source)
{
	if (*newval && !TenancyIsValid(*newval))
	{
		GUC_check_errdetail("A tenant id has at most %d bytes.", TENANT_MAX_BYTES);
		return false;
	}
	return true;
}

/* SQL: current_tenant() */
Datum
cqrs_es_current_tenant(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(TenancyCurrent());
}

/* The current tenant, '' when there is none; palloc'd.  QE007 where there must be one. */
text *
TenancyCurrent(void)
{
	text	   *tenant_id = setting_as_text();

	TenancyRequireGiven(tenant_id);
	return tenant_id;
}

static text *
setting_as_text(void)
{
	return cstring_to_text(cqrs_es_tenant_id ? cqrs_es_tenant_id : "");
}

/*
 * Be in this tenant until the given nesting level of settings ends; one begins when
 * that is 0 and the tenant is another one.  What runs for an event runs in the
 * tenant of that event, whoever appends, imports or rebuilds.  An error sets it back
 * with the (sub)transaction's abort.
 */
void
TenancyActFor(const text *tenant_id, int *guc_level)
{
	const char *current = cqrs_es_tenant_id ? cqrs_es_tenant_id : "";
	size_t		length = VARSIZE_ANY_EXHDR(tenant_id);

	if (strlen(current) == length && memcmp(current, VARDATA_ANY(tenant_id), length) == 0)
		return;
	if (*guc_level == 0)
		*guc_level = NewGUCNestLevel();
	(void) set_config_option("cqrs_es.tenant_id", text_to_cstring(tenant_id), PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* Where events must have a tenant, is this one?  QE007. */
void
TenancyRequireGiven(const text *tenant_id)
{
	if (cqrs_es_require_tenant && VARSIZE_ANY_EXHDR(tenant_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TENANT_REQUIRED),
				 errmsg("no tenant is set"),
				 errdetail("Events must have a tenant here, since cqrs_es.require_tenant is on."),
				 errhint("Say whose events are meant: SET LOCAL cqrs_es.tenant_id = '...'.")));
}

/*
 * The caller must be somebody who may write rows of this tenant into the table:
 * the tenant is the current one, or row security does not concern them.  For
 * triggers, which run before the server looks at policies, and on partitions,
 * which have none.  Raises 42501.
 */
void
TenancyRequireOwn(Relation rel, const text *tenant_id)
{
	if (!TextEqual(tenant_id, setting_as_text()) &&
		!has_bypassrls_privilege(GetUserId()) &&
		!compat_class_ownercheck(RelationGetRelid(rel), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to insert events of another tenant"),
				 errhint("Leave tenant_id out; it is that of the session.")));
}

/*-------------------------------------------------------------------------
 * the policy
 *-------------------------------------------------------------------------
 */

/*
 * Is our own policy all that row security says about this table?  Then whoever
 * stamps and looks for the current tenant complies, below the executor too.
 */
bool
TenancyIsAllRowSecurity(Relation rel, AttrNumber tenant_id)
{
	Oid			current_tenant = ExtensionFindFunction("current_tenant");
	ListCell   *lc;

	/* from here on a cache's memory: no look into the catalog any more */
	if (rel->rd_rsdesc == NULL || rel->rd_rsdesc->policies == NIL)
		return false;
	foreach(lc, rel->rd_rsdesc->policies)
	{
		if (!is_tenant_policy(lfirst(lc), tenant_id, current_tenant))
			return false;
	}
	return true;
}

/* PERMISSIVE FOR ALL TO PUBLIC USING (tenant_id = cqrs_es.current_tenant()), by any name? */
static bool
is_tenant_policy(const RowSecurityPolicy *policy, AttrNumber tenant_id, Oid current_tenant)
{
	/* roles: an array of oids without nulls */
	const Oid  *roles = (const Oid *) ((const char *) policy->roles + ARR_OVERHEAD_NONULLS(1));

	return policy->permissive &&
		policy->polcmd == '*' &&
		ArrayGetNItems(ARR_NDIM(policy->roles), ARR_DIMS(policy->roles)) == 1 &&
		roles[0] == ACL_ID_PUBLIC &&
		is_tenant_qual(policy->qual, tenant_id, current_tenant) &&
		(policy->with_check_qual == NULL ||
		 is_tenant_qual(policy->with_check_qual, tenant_id, current_tenant));
}

static bool
is_tenant_qual(const Expr *qual, AttrNumber tenant_id, Oid current_tenant)
{
	const OpExpr *comparison = (const OpExpr *) qual;

	return qual != NULL && IsA(qual, OpExpr) &&
		comparison->opno == TextEqualOperator &&
		IsA(linitial(comparison->args), Var) &&
		linitial_node(Var, comparison->args)->varattno == tenant_id &&
		IsA(lsecond(comparison->args), FuncExpr) &&
		lsecond_node(FuncExpr, comparison->args)->funcid == current_tenant;
}
