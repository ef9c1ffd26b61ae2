/*-------------------------------------------------------------------------
 * read_model.c
 *	  Tables that projections keep are not dropped meanwhile.
 *
 * How a registry names them is in registry_name.c.  Who creates a projection
 * locks them before it looks at them, so a drop either waits and finds the
 * projection, or is waited for (registry.c has the order of locks).  (The event
 * trigger's own function is in sql/90_protect.sql.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/registry.h"

PG_FUNCTION_INFO_V1(cqrs_es_protect_read_models);

/*
 * SQL: protect_read_models(), called by the event trigger on sql_drop.  2BP01 when
 * a table is dropped that a projection keeps.
 */
Datum
cqrs_es_protect_read_models(PG_FUNCTION_ARGS)
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
	Oid			schema = get_namespace_oid(CQRS_ES_SCHEMA, true);

	/* the extension itself may be what is dropped */
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("projections", schema)))
		PG_RETURN_VOID();

	SPI_connect();
	if (RegistryRead(&query, NULL) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		char	   *projection = InternalQueryText(&row, "projection");

		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop table %s because a projection keeps it",
						InternalQueryText(&row, "table_name")),
				 errdetail("It is projection \"%s\".", projection),
				 errhint("Drop that first, with SELECT cqrs_es.drop_projection(%s).",
						 quote_literal_cstr(projection))));
	}
	SPI_finish();
	PG_RETURN_VOID();
}
