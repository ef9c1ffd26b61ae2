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
 * a session set before this library was loaded is checked when it is.
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
#include "base/extension.h"
#include "base/tenancy.h"
#include "base/text.h"

static char *cqrs_es_tenant_id = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_current_tenant);

static bool could_set(const char *name, GucContext context, Oid role);
static bool check_tenant_id(char **newval, void **extra, GucSource source);
static bool is_tenant_policy(const RowSecurityPolicy *policy, AttrNumber tenant_id,
							 Oid current_tenant);
static bool is_tenant_qual(const Expr *qual, AttrNumber tenant_id, Oid current_tenant);

/*
 * Do not load while a setting that not everyone may set (PGC_SUSET) has a value
 * from somebody who may not set it.  Before the library is loaded, which may be in the middle of a session, the
 * server knows no better than to let anybody set it, by SET or in the
 * connection's options.  When the setting is defined it would drop such a value
 * with a warning, and go on with another one than the client believes; with the
 * default even, when the value came with the connection and so kept out what
 * ALTER ROLE or postgresql.conf say.  An error here leaves the library unloaded:
 * the next use comes here again.  Raises 42501.
 */
void
TenancyRefuseForgedSetting(const char *name)
{
	struct config_generic *setting = compat_find_setting(name);

	if (setting == NULL ||
		(could_set(name, setting->scontext, setting->srole) &&
		 could_set(name, setting->reset_scontext, setting->reset_srole)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to set parameter \"%s\"", name),
			 errdetail("It was set in this session or with the connection's options."),
			 errhint("Reset it, or connect without it.")));
}

void
TenancyInit(void)
{
	DefineCustomStringVariable("cqrs_es.tenant_id",
							   "The tenant whose events are appended and read.",
							   "Empty for a database without tenants.",
							   &cqrs_es_tenant_id, "",
							   PGC_SUSET, 0, check_tenant_id, NULL, NULL);
}

static bool
check_tenant_id(char **newval, void **extra, GucSource source)
{
	if (*newval && strlen(*newval) > TENANT_MAX_BYTES)
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

/* The current tenant, '' when there is none; palloc'd. */
text *
TenancyCurrent(void)
{
	return cstring_to_text(cqrs_es_tenant_id ? cqrs_es_tenant_id : "");
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
	if (!TextEqual(tenant_id, TenancyCurrent()) &&
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
	Oid			none[1] = {InvalidOid};
	Oid			current_tenant = LookupFuncName(list_make2(makeString(CQRS_ES_SCHEMA),
														   makeString("current_tenant")),
												0, none, true);
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

/* As the server will judge it when it knows that the setting is PGC_SUSET. */
static bool
could_set(const char *name, GucContext context, Oid role)
{
	return (context != PGC_USERSET && context != PGC_BACKEND) ||
		pg_parameter_aclcheck(name, role, ACL_SET) == ACLCHECK_OK;
}
