/*-------------------------------------------------------------------------
 * tenants.c
 *	  All tenants of the log, and who may see their events together.
 *
 * There is one right for both: to execute tenants(), which nobody has unless it
 * was granted.  Those who see all rows of the table anyway, its owner and roles with
 * BYPASSRLS, read the events of all tenants without it.
 *
 * Nothing lists tenants: no append pays for a table or an index that a few look at
 * now and then.  So the list is one pass over the log, or over the narrowest
 * index that the planner finds; unless somebody who has many tenants has created an
 * index that begins with the tenant.  Then the list jumps in it from one to the next.
 * (To jump in the primary key, from stream to stream, takes longer than the pass,
 * unless streams are very long.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "log/events.h"
#include "log/tenants.h"

PG_FUNCTION_INFO_V1(cqrs_es_tenants);

static bool sees_all_rows(void);
static bool may_execute_tenants(void);
static bool has_index(void);
static uint64 read_tenants(void);

/*
 * SQL: tenants().  Those that have events, in their order; the empty text stands for
 * events without a tenant.
 */
Datum
cqrs_es_tenants(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RoleSwitch	saved;
	uint64		n;
	uint64		i;

	EventsRequireRights(ACL_SELECT);
	TenantsRequireAll();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	SPI_connect();
	saved = RoleSwitchToOwner("events");
	n = read_tenants();
	for (i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		tenant_id = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		tuplestore_putvalues(result->setResult, result->setDesc, &tenant_id, &isnull);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return (Datum) 0;
}

/*
 * May the caller see the events of all tenants?  42501, also where policies of users
 * decide what the caller sees: then that is one tenant's, by our own policy.
 */
void
TenantsRequireAll(void)
{
	if (sees_all_rows())
		return;
	if (!may_execute_tenants())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read the events of all tenants"),
				 errhint("It takes GRANT EXECUTE ON FUNCTION %s.tenants().", CQRS_ES_SCHEMA)));
	if (EventsRowSecurity())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read the events of all tenants"),
				 errdetail("The log has policies of its own, which show the current tenant's alone."),
				 errhint("Read as a role with BYPASSRLS.")));
}

/* The same as an answer. */
bool
TenantsMayAll(void)
{
	return sees_all_rows() || (may_execute_tenants() && !EventsRowSecurity());
}

/* Does row security not concern the caller? */
static bool
sees_all_rows(void)
{
	return compat_class_ownercheck(ExtensionRelid("events"), GetUserId()) ||
		has_bypassrls_privilege(GetUserId());
}

static bool
may_execute_tenants(void)
{
	bool		is_missing = false;
	Oid			none[1] = {InvalidOid};
	Oid			tenants = LookupFuncName(list_make2(makeString(CQRS_ES_SCHEMA), makeString("tenants")),
										 0, none, true);

	return OidIsValid(tenants) &&
		compat_proc_aclcheck(tenants, GetUserId(), ACL_EXECUTE, &is_missing) == ACLCHECK_OK;
}

/* The tenants, as the rows of SPI_tuptable; returns how many.  As the log's owner. */
static uint64
read_tenants(void)
{
	static InternalQuery jump = {
		.sql = "WITH RECURSIVE found (tenant_id) AS ("
		"(SELECT e.tenant_id FROM cqrs_es.events AS e ORDER BY e.tenant_id LIMIT 1)"
		" UNION ALL SELECT (SELECT e.tenant_id FROM cqrs_es.events AS e"
		" WHERE e.tenant_id OPERATOR(pg_catalog.>) f.tenant_id ORDER BY e.tenant_id LIMIT 1)"
		" FROM found AS f WHERE f.tenant_id IS NOT NULL)"
		" SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL"
	};
	static InternalQuery pass = {
		.sql = "SELECT DISTINCT tenant_id FROM cqrs_es.events ORDER BY tenant_id"
	};

	return InternalQueryRead(has_index() ? &jump : &pass, NULL, NULL, InternalQueryFreshSnapshot());
}

/* Is there a whole btree that begins with the tenant? */
static bool
has_index(void)
{
	static InternalQuery query = {
		.sql = "SELECT FROM pg_catalog.pg_index AS i"
		" JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid"
		" AND a.attnum OPERATOR(pg_catalog.=) i.indkey[0]"
		" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid"
		" JOIN pg_catalog.pg_am AS m ON m.oid OPERATOR(pg_catalog.=) c.relam"
		" WHERE i.indrelid OPERATOR(pg_catalog.=) 'cqrs_es.events'::pg_catalog.regclass"
		" AND a.attname OPERATOR(pg_catalog.=) 'tenant_id' AND m.amname OPERATOR(pg_catalog.=) 'btree'"
		" AND i.indisvalid AND i.indpred IS NULL AND i.indcollation[0] OPERATOR(pg_catalog.=) a.attcollation"
	};

	return InternalQueryRead(&query, NULL, NULL, InternalQueryFreshSnapshot()) > 0;
}
