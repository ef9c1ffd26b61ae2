/*-------------------------------------------------------------------------
 * routed_call.c
 *	  What a call needs that somebody else sends here: a front, which has asked by the
 *	  stream which server it is for.
 *
 * Settings do not travel with a call, and what a session of the front's keeps must not either: its
 * connections are used again for whatever comes next.  So tenant and context come as arguments,
 * and are set here, for the transaction, which is that one call, as its caller could
 * have set them: of tenants only who may (42501), or whose tenant it is anyway.
 *
 * Both functions return an argument of the call that is to follow, and stand in its place:
 *
 *		SELECT * FROM cqrs_es.append_event(cqrs_es.routed_stream($1, $2, $10, $11), $2, ...)
 *
 * for arguments are there before their function is called.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "scale/kept_shards.h"

PG_FUNCTION_INFO_V1(cqrs_es_routed_stream);
PG_FUNCTION_INFO_V1(cqrs_es_routed_argument);

static void set_locally(const char *setting, NullableDatum value);

/* SQL: routed_stream(aggregate_type, aggregate_id, tenant_id, context); QE605, 42501 */
Datum
cqrs_es_routed_stream(PG_FUNCTION_ARGS)
{
	set_locally("cqrs_es.tenant_id", fcinfo->args[2]);
	set_locally("cqrs_es.context", fcinfo->args[3]);
	/* without a key the call that follows complains */
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	KeptShardsRequire(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1));
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/* SQL: routed_argument(argument, tenant_id); 42501 */
Datum
cqrs_es_routed_argument(PG_FUNCTION_ARGS)
{
	set_locally("cqrs_es.tenant_id", fcinfo->args[1]);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/* To the end of the transaction, as set_config(..., true); null leaves what there is. */
static void
set_locally(const char *setting, NullableDatum value)
{
	const char *current;
	char	   *wanted;

	if (value.isnull)
		return;
	wanted = text_to_cstring(DatumGetTextPP(value.value));
	current = GetConfigOption(setting, false, false);
	if (current != NULL && strcmp(current, wanted) == 0)
		return;
	(void) set_config_option(setting, wanted, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}
