/*-------------------------------------------------------------------------
 * registry_name.h
 *	  Roles and tables that registries name.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REGISTRY_NAME_H
#define CQRS_ES_REGISTRY_NAME_H

/*
 * SQL: the role of a registry's row, as an oid; 0 when there is none.  One that
 * has an oid is that role or none, whoever has got its name since.
 */
#define REGISTRY_ROLE(role, name) \
	"coalesce(" role ", (SELECT r.oid FROM pg_catalog.pg_roles AS r" \
	" WHERE r.rolname OPERATOR(pg_catalog.=) " name "), 0)::pg_catalog.oid"

/*
 * SQL: the read models of a registry's row p (its columns read_models and
 * read_model_names), as an array of regclass as long as that of their names, with 0
 * for what is missing; empty when there are none.  What is gone is followed by a new
 * table of its name, as the handlers' statements do.
 */
#define REGISTRY_READ_MODELS \
	"ARRAY(SELECT coalesce(t.oid, o.oid, 0)::pg_catalog.regclass" \
	" FROM pg_catalog.generate_subscripts(p.read_model_names, 1) AS i" \
	" LEFT JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) p.read_models[i]" \
	" LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname OPERATOR(pg_catalog.=) p.read_model_names[i][1]" \
	" LEFT JOIN pg_catalog.pg_class AS o ON o.relnamespace OPERATOR(pg_catalog.=) n.oid" \
	" AND o.relname OPERATOR(pg_catalog.=) p.read_model_names[i][2]" \
	" AND o.relkind IN ('r', 'p') AND o.relpersistence OPERATOR(pg_catalog.<>) 't'" \
	" ORDER BY i)"

extern char *RegistryNameMissingTable(Datum tables, Datum names, bool names_isnull, int *next);
extern void RegistryNameRequireRole(Oid role, const char *name, const char *what);

#endif							/* CQRS_ES_REGISTRY_NAME_H */
