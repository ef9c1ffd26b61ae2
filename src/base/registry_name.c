/*-------------------------------------------------------------------------
 * registry_name.c
 *	  Roles and tables that registries name: definers, owners, consumers, read models.
 *
 * A registry has them by oid, which follows a rename, and beside it by the name
 * they had when the row was written.  Neither alone would do for a dump: an
 * oid means nothing elsewhere, and of a renamed role nobody tells us.  So what is
 * dumped is the name of that time, put in by the condition that
 * pg_extension_config_dump got, and no oid; with the server's own functions alone,
 * for a dump must be possible when this library is missing.
 *
 * A row trigger finds the oids again.  Unlike a value of type regrole or regclass
 * that cannot be read, a name that means nothing does not end the COPY of all
 * rows: it is told by a warning, and the row is there with the name alone.  Until
 * there is something of that name, the row does nothing and says so when it
 * should: a handler fails the append, a decider the command.
 *
 * The same trigger sees to it that nobody who has been granted to write a registry lets
 * something run with the rights of another.
 *
 * A role that is dropped stays dropped: no other role of its name takes over what
 * it defined.  A table that is dropped, which takes some force (an event trigger
 * refuses it, read_model.c), is followed by one of its name, as the statements that name it do.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/registry_function.h"
#include "base/registry_name.h"
#include "base/restore.h"

PG_FUNCTION_INFO_V1(cqrs_es_resolve_names);

/* A row that is about to be stored. */
typedef struct RegistryRow
{
	Relation	rel;
	HeapTuple	tuple;
	bool		is_new;			/* restored, perhaps */
} RegistryRow;

/* Of a table that a registry names. */
typedef struct TableName
{
	char	   *schema;
	char	   *table;
} TableName;

static TableName *table_names(Datum names, bool isnull, int *n);
static void require_own(const RegistryRow *row, HeapTuple tuple);
static void resolve_role(RegistryRow *row, const char *role_column, const char *name_column);
static void resolve_tables(RegistryRow *row);
static void check_function(RegistryRow *row);
static bool has_column(const RegistryRow *row, const char *name, Oid type);
static Datum get_column(const RegistryRow *row, const char *name, bool *isnull);
static void set_column(RegistryRow *row, const char *name, Datum value);
static void warn(const RegistryRow *row, int sqlerrcode, const char *what);
static Oid	find_table(const TableName *name);
static bool name_of_table(Oid table, TableName *name);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: the row trigger of registries that name roles, tables or functions */
Datum
cqrs_es_resolve_names(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	RegistryRow row;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ||
		RelationGetNamespace(trigger->tg_relation) != get_namespace_oid(CQRS_ES_SCHEMA, true))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as the trigger of a registry", "resolve_names()")));
	row.rel = trigger->tg_relation;
	row.is_new = TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
	row.tuple = row.is_new ? trigger->tg_trigtuple : trigger->tg_newtuple;
	if (!row.is_new)
		require_own(&row, trigger->tg_trigtuple);
	resolve_role(&row, "definer", "definer_name");
	resolve_role(&row, "owner", "owner_name");
	resolve_role(&row, "consumer_role", "consumer_role_name");
	require_own(&row, row.tuple);
	resolve_tables(&row);
	check_function(&row);
	return PointerGetDatum(row.tuple);
}

/*-------------------------------------------------------------------------
 * for those who read registries
 *-------------------------------------------------------------------------
 */

/*
 * The pairs of an array of names, palloc'd; none when it is null.  Whatever else
 * somebody wrote by hand counts as none, too.
 */
static TableName *
table_names(Datum names, bool isnull, int *n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	TableName  *result;
	int			i;

	*n = 0;
	if (isnull)
		return NULL;
	array = DatumGetArrayTypeP(names);
	if (ARR_NDIM(array) != 2 || ARR_DIMS(array)[1] != 2)
		return NULL;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	*n /= 2;
	result = palloc(*n * sizeof(TableName));
	for (i = 0; i < *n; i++)
	{
		result[i].schema = nulls[2 * i] ? "" : TextDatumGetCString(elements[2 * i]);
		result[i].table = nulls[2 * i + 1] ? "" : TextDatumGetCString(elements[2 * i + 1]);
	}
	return result;
}

/*
 * The qualified name of the first table, from the place *next on, that is missing
 * among those that REGISTRY_READ_MODELS found for these names; NULL when there is
 * none.  *next becomes the place after it.  In the current memory context.
 */
char *
RegistryNameMissingTable(Datum tables, Datum names, bool names_isnull, int *next)
{
	int			n;
	TableName  *name = table_names(names, names_isnull, &n);
	Datum	   *oids;
	int			noids;

	deconstruct_array(DatumGetArrayTypeP(tables), REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &oids, NULL, &noids);
	for (n = Min(n, noids); *next < n; (*next)++)
		if (!OidIsValid(DatumGetObjectId(oids[*next])))
		{
			name += (*next)++;
			return quote_qualified_identifier(name->schema, name->table);
		}
	return NULL;
}

/*
 * The role must exist: 42704.  One that was dropped would be nobody, with
 * nobody's rights.  `what` it did, as in "defined the handler", for the message.
 */
void
RegistryNameRequireRole(Oid role, const char *name, const char *what)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\", which %s, does not exist", name, what),
				 errhint("Define it anew, as a role that exists.")));
}

/*-------------------------------------------------------------------------
 * the row trigger
 *-------------------------------------------------------------------------
 */

/*
 * A row says with whose rights something runs.  Functions write it as the table's owner;
 * somebody else who was granted to write the table may do so for roles whose rights they
 * have, and no others: 42501.  One that is missing may come to be anybody.
 */
static void
require_own(const RegistryRow *row, HeapTuple tuple)
{
	static const char *const columns[] = {"definer", "owner"};
	TupleDesc	desc = RelationGetDescr(row->rel);
	size_t		i;

	if (compat_class_ownercheck(RelationGetRelid(row->rel), GetUserId()))
		return;
	for (i = 0; i < lengthof(columns); i++)
	{
		bool		isnull;
		Datum		role;

		if (!has_column(row, columns[i], REGROLEOID))
			continue;
		role = heap_getattr(tuple, SPI_fnumber(desc, columns[i]), desc, &isnull);
		if (isnull || !has_privs_of_role(GetUserId(), DatumGetObjectId(role)))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to declare for another role in table \"%s\"",
							RelationGetRelationName(row->rel)),
					 errhint("Declarations are made by the functions that are there for it.")));
	}
}

/* Of an oid the name of now; of a name alone the oid, if there is such a role. */
static void
resolve_role(RegistryRow *row, const char *role_column, const char *name_column)
{
	bool		has_no_role;
	bool		has_no_name;
	Datum		stored;
	Oid			role;
	char	   *name;

	if (!has_column(row, role_column, REGROLEOID) || !has_column(row, name_column, TEXTOID))
		return;
	role = DatumGetObjectId(get_column(row, role_column, &has_no_role));
	if (!has_no_role)
	{
		name = GetUserNameFromId(role, true);
		if (name)
			set_column(row, name_column, CStringGetTextDatum(name));
		return;
	}
	stored = get_column(row, name_column, &has_no_name);
	if (has_no_name)
		return;
	if (row->is_new)
		RestoreBringsRow();
	name = TextDatumGetCString(stored);
	role = get_role_oid(name, true);
	if (OidIsValid(role))
		set_column(row, role_column, ObjectIdGetDatum(role));
	else if (row->is_new)
		warn(row, ERRCODE_UNDEFINED_OBJECT, psprintf("role \"%s\" does not exist", name));
}

/* The same for read models; of one that is gone its name stays. */
static void
resolve_tables(RegistryRow *row)
{
	bool		has_no_tables;
	bool		has_no_names;
	Datum		tables;
	Datum		names;
	TableName  *name;
	int			nnames;
	Datum	   *oids = NULL;
	int			n = 0;
	Datum	   *texts;
	int			dims[2];
	int			lower[2] = {1, 1};
	int			i;

	if (!has_column(row, "read_models", REGCLASSARRAYOID) ||
		!has_column(row, "read_model_names", TEXTARRAYOID))
		return;
	tables = get_column(row, "read_models", &has_no_tables);
	names = get_column(row, "read_model_names", &has_no_names);
	name = table_names(names, has_no_names, &nnames);
	if (has_no_tables && has_no_names)
		return;
	if (!has_no_tables)
		deconstruct_array(DatumGetArrayTypeP(tables), REGCLASSOID, sizeof(Oid), true,
						  TYPALIGN_INT, &oids, NULL, &n);
	else
	{
		n = nnames;
		oids = palloc0(Max(n, 1) * sizeof(Datum));
	}
	texts = palloc(Max(2 * n, 1) * sizeof(Datum));
	for (i = 0; i < n; i++)
	{
		TableName	now = i < nnames ? name[i] : (TableName) {"", ""};

		if (!name_of_table(DatumGetObjectId(oids[i]), &now))
		{
			oids[i] = ObjectIdGetDatum(find_table(&now));
			if (row->is_new && !OidIsValid(DatumGetObjectId(oids[i])))
				warn(row, ERRCODE_UNDEFINED_TABLE,
					 psprintf("read model %s does not exist",
							  quote_qualified_identifier(now.schema, now.table)));
		}
		texts[2 * i] = CStringGetTextDatum(now.schema);
		texts[2 * i + 1] = CStringGetTextDatum(now.table);
	}
	dims[0] = n;
	dims[1] = 2;
	set_column(row, "read_models",
			   PointerGetDatum(construct_array(oids, n, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT)));
	set_column(row, "read_model_names",
			   PointerGetDatum(n == 0 ? construct_empty_array(TEXTOID) :
							   construct_md_array(texts, NULL, 2, dims, lower, TEXTOID, -1, false, TYPALIGN_INT)));
}

/* A function is kept by its signature alone, and looked up when it is called. */
static void
check_function(RegistryRow *row)
{
	bool		isnull;
	Datum		signature;

	if (!row->is_new || !has_column(row, "function", TEXTOID))
		return;
	signature = get_column(row, "function", &isnull);
	if (!isnull && !RegistryFunctionExists(signature))
		warn(row, ERRCODE_UNDEFINED_FUNCTION,
			 psprintf("function %s does not exist", TextDatumGetCString(signature)));
}

static bool
has_column(const RegistryRow *row, const char *name, Oid type)
{
	TupleDesc	desc = RelationGetDescr(row->rel);
	int			column = SPI_fnumber(desc, name);

	return column > 0 && TupleDescAttr(desc, column - 1)->atttypid == type;
}

static Datum
get_column(const RegistryRow *row, const char *name, bool *isnull)
{
	TupleDesc	desc = RelationGetDescr(row->rel);

	return heap_getattr(row->tuple, SPI_fnumber(desc, name), desc, isnull);
}

static void
set_column(RegistryRow *row, const char *name, Datum value)
{
	TupleDesc	desc = RelationGetDescr(row->rel);
	int			column = SPI_fnumber(desc, name);
	bool		isnull = false;

	row->tuple = heap_modify_tuple_by_cols(row->tuple, desc, 1, &column, &value, &isnull);
}

/* Say what a restored row lacks: which row is told by the texts of its key. */
static void
warn(const RegistryRow *row, int sqlerrcode, const char *what)
{
	TupleDesc	desc = RelationGetDescr(row->rel);
	char	   *key = SPI_getvalue(row->tuple, desc, 1);

	if (TupleDescAttr(desc, 1)->atttypid == TEXTOID)
		key = psprintf("%s, %s", key, SPI_getvalue(row->tuple, desc, 2));
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg_internal("%s", what),
			 errdetail("Row (%s) of table %s.%s names it, and will fail until it exists.",
					   key, CQRS_ES_SCHEMA, RelationGetRelationName(row->rel))));
}

/* The table of this name, if it is one that could be a read model. */
static Oid
find_table(const TableName *name)
{
	Oid			schema = get_namespace_oid(name->schema, true);
	Oid			table = OidIsValid(schema) ? get_relname_relid(name->table, schema) : InvalidOid;
	char		kind = OidIsValid(table) ? get_rel_relkind(table) : '\0';

	return (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE) &&
		get_rel_persistence(table) != RELPERSISTENCE_TEMP ? table : InvalidOid;
}

/* False when there is no such table: then the name is left as it is. */
static bool
name_of_table(Oid table, TableName *name)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	char	   *schema;

	if (!HeapTupleIsValid(tuple))
		return false;
	schema = get_namespace_name(((Form_pg_class) GETSTRUCT(tuple))->relnamespace);
	if (schema)
	{
		name->schema = schema;
		name->table = pstrdup(NameStr(((Form_pg_class) GETSTRUCT(tuple))->relname));
	}
	ReleaseSysCache(tuple);
	return schema != NULL;
}
