/*-------------------------------------------------------------------------
 * tenancy.c
 *	  Who is calling: the current tenant, and the caller's rights.
 *
 * A tenant is a text that stands in every key of per-aggregate data; '' is
 * the tenant of those who never heard of tenants.  Our functions reach the
 * log below the executor, which would have checked grants, so they ask here
 * first: SELECT on cqrs_es.events to read, and INSERT as well to append (which
 * reads: the version, and what an id stands for).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "tenancy.h"

static char *cqrs_es_tenant_id = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_current_tenant);

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

void
TenancyInit(void)
{
	DefineCustomStringVariable("cqrs_es.tenant_id",
							   "The tenant whose events are appended and read.",
							   "Empty for a database without tenants.",
							   &cqrs_es_tenant_id, "",
							   PGC_USERSET, 0, check_tenant_id, NULL, NULL);
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
 * The caller must have all of `mode` (ACL_INSERT, ACL_SELECT or both) on the log.
 * Raises 42501.
 */
void
TenancyRequireEvents(Oid events_relid, AclMode mode)
{
	if (pg_class_aclmask(events_relid, GetUserId(), mode, ACLMASK_ALL) != mode)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(events_relid));
}
