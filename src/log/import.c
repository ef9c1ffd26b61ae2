/*-------------------------------------------------------------------------
 * import.c
 *	  History of other systems: the rows of a table or view become events, with
 *	  their times, ids and order.
 *
 * An import is one INSERT ... SELECT into the log, so all that holds for an INSERT
 * holds for it, projections and snapshots included.  What is done here is to put
 * that together, for what one has by hand is easily wrong:
 *
 *	- sequences begin at 1 and have no holes, whatever the old ones were: of streams
 *	  that began at 0, or whose beginning was deleted.  An old one that differs is
 *	  kept in the metadata.
 *	- the events of all streams come in the old order of the whole, and within a stream
 *	  in that of its sequences.
 *	- an event without an id gets one that is made of its old place, so that
 *	  a second run makes the same ones.  What is in the log already is passed over,
 *	  known by its id, and anything else in its place is an error.
 *	- tags, which are no column of the log, are put aside for its triggers (import_tags.c).
 *	- at the end what was read of the source is compared with the log.
 *
 * The source is read once, by a statement that is put together from the columns that it has and
 * runs as the caller; what it gives is kept, in memory or temporary files, for the other
 * statements, which know it as the table `n`.  So all of them see one moment of a source in
 * which the old system goes on writing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "nodes/value.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "log/append.h"
#include "log/import.h"
#include "log/import_tags.h"
#include "log/log_end.h"
#include "log/personal_data.h"
#include "log/tagging.h"

PG_FUNCTION_INFO_V1(cqrs_es_import_events);

/* A column that a source may have. */
typedef struct SourceColumn
{
	const char *name;
	const char *type;
	Oid			oid;			/* of the type */
	const char *otherwise;		/* its value when there is none; NULL: it must be there */
} SourceColumn;

static const SourceColumn source_columns[] = {
	{"tenant_id", "text", TEXTOID, "cqrs_es.current_tenant()"},
	{"aggregate_type", "text", TEXTOID, NULL},
	{"aggregate_id", "text", TEXTOID, NULL},
	{"sequence", "bigint", INT8OID, "NULL"},
	{"position", "numeric", NUMERICOID, "NULL"},
	{"event_type", "text", TEXTOID, NULL},
	{"event_version", "text", TEXTOID, "'1'"},
	{"payload", "jsonb", JSONBOID, NULL},
	{"metadata", "jsonb", JSONBOID, "'{}'"},
	{"event_id", "uuid", UUIDOID, "NULL"},
	{"created_at", "timestamptz", TIMESTAMPTZOID, "NULL"},
	{"tags", "text[]", TEXTARRAYOID, "'{}'"},
};

/* Which of them a source has, and its rows. */
typedef struct Source
{
	bool		has[lengthof(source_columns)];
	bool		has_sequence;
	bool		has_position;
	bool		has_tags;
	char	   *name;
	Tuplestorestate *rows;
} Source;

/*
 * The rows of a source as events, `n`: with their number in the stream, the sequence of the row
 * before in it, the greatest position of those before, and where they stand in the order of all
 * (rank, rank_of_time).
 */
static const struct
{
	const char *name;
	Oid			type;
}			row_columns[] = {
	{"tenant_id", TEXTOID},
	{"aggregate_type", TEXTOID},
	{"aggregate_id", TEXTOID},
	{"sequence", INT8OID},
	{"position", NUMERICOID},
	{"event_type", TEXTOID},
	{"event_version", TEXTOID},
	{"payload", JSONBOID},
	{"metadata", JSONBOID},
	{"created_at", TIMESTAMPTZOID},
	{"tags", TEXTARRAYOID},
	{"event_id", UUIDOID},
	{"number", INT8OID},
	{"sequence_before", INT8OID},
	{"position_before", NUMERICOID},
	{"rank", NUMERICOID},
	{"rank_of_time", TIMESTAMPTZOID},
};

/* Looks at the tags of events, one row after the other. */
typedef struct TagsCheck
{
	DestReceiver receiver;
	MemoryContext memory;		/* of one row */
} TagsCheck;

/* The numbered rows are joined with the log by this. */
#define SAME_PLACE \
	"e.aggregate_type = n.aggregate_type AND e.aggregate_id = n.aggregate_id" \
	" AND e.tenant_id = n.tenant_id AND e.sequence = n.number"

/* Those that an import brings. */
#define NOT_THERE "NOT EXISTS (SELECT FROM cqrs_es.events AS e WHERE " SAME_PLACE ")"

/*
 * The order in which events are appended: by position, and by time where a whole stream
 * has none.  Both only rise in a stream, so no stream is turned around.
 */
#define IN_ORDER \
	"n.rank, n.rank_of_time, n.tenant_id, n.aggregate_type, n.aggregate_id, n.number"

/*
 * Where an event stands by a column: with the greatest so far in its stream, and before
 * the first, with the least.  Null, and so at the end, when the stream has none.
 */
#define RANK(column) \
	"coalesce(max(" column ") OVER stream, min(" column ") OVER (PARTITION BY tenant_id, aggregate_type, aggregate_id))"

static RoleSwitch fix_search_path(void);
static void open_source(Oid relid, Source *source);
static void note_columns(Relation rel, Source *source);
static void read_source(Source *source);
static TupleDesc row_desc(void);
static char *rows_of(const Source *source);
static void check_source(const Source *source);
pg_noreturn static void report_problem(const QueryRow *row);
static uint64 insert_events(const Source *source);
static uint64 insert_tagged(const Source *source);
static void check_log(const Source *source, int64 before, Datum *values, bool *nulls);
static void check_tags(const Source *source);
static void begin_check(DestReceiver * receiver, int operation, TupleDesc desc);
static void end_check(DestReceiver * receiver);
static bool check_tags_of(TupleTableSlot *slot, DestReceiver * receiver);
static QueryRow query_row(const Source *source, const char *sql, int64 argument);
static int	run(const Source *source, const char *sql, const int64 *argument,
				DestReceiver * receiver);
static void name_source(ErrorData *error, const Source *source, const char *sql);

/*
 * SQL: import_events(source regclass, OUT streams, OUT imported, OUT already_there,
 * OUT last_position).  Raises 42P01 for a source that is not there, 42703 for columns that are missing or not known, 22023
 * and 23505 for rows that are no history, 55000 when the log is not what the source
 * says in the end, and what an INSERT raises.
 */
Datum
cqrs_es_import_events(PG_FUNCTION_ARGS)
{
	Source		source;
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};
	RoleSwitch	saved;
	int64		before;
	uint64		imported;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("source must not be null")));
	ReadOnlyPrevent(fcinfo);
	EventsRefuseDistributed("import_events()");
	open_source(PG_GETARG_OID(0), &source);
	SPI_connect();
	saved = fix_search_path();
	read_source(&source);
	check_source(&source);
	before = LogEnd(PG_INT64_MAX, false, NULL);
	imported = source.has_tags ? insert_tagged(&source) : insert_events(&source);
	check_log(&source, before, values, nulls);
	if (source.has_tags)
		check_tags(&source);
	RoleSwitchBack(&saved);
	tuplestore_end(source.rows);
	SPI_finish();

	values[2] = Int64GetDatum(DatumGetInt64(values[1]) - (int64) imported);
	values[1] = Int64GetDatum((int64) imported);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* Was the caller granted to import?  Then an INSERT may say as well when an event happened. */
bool
ImportAllowed(void)
{
	Oid			argtype[1] = {REGCLASSOID};
	Oid			function = LookupFuncName(list_make2(makeString(CQRS_ES_SCHEMA),
													 makeString("import_events")),
										  1, argtype, true);
	bool		is_missing = false;

	return OidIsValid(function) &&
		compat_proc_aclcheck(function, GetUserId(), ACL_EXECUTE, &is_missing) == ACLCHECK_OK;
}

/* Operators and functions in our statements are the server's. */
static RoleSwitch
fix_search_path(void)
{
	RoleSwitch	saved = RoleSwitchStay();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

/* Locked to the end of the transaction (AccessShareLock), as by a SELECT.  42P01, 42809. */
static void
open_source(Oid relid, Source *source)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("source does not exist"),
				 errdetail("There is no table with OID %u.", relid)));
	if (rel->rd_rel->relkind == RELKIND_INDEX || rel->rd_rel->relkind == RELKIND_PARTITIONED_INDEX ||
		rel->rd_rel->relkind == RELKIND_COMPOSITE_TYPE || rel->rd_rel->relkind == RELKIND_SEQUENCE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table or view", RelationGetRelationName(rel))));
	note_columns(rel, source);
	source->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											  RelationGetRelationName(rel));
	relation_close(rel, NoLock);
}

static void
note_columns(Relation rel, Source *source)
{
	TupleDesc	desc = RelationGetDescr(rel);
	size_t		column;
	int			att;

	memset(source, 0, sizeof(Source));
	for (att = 0; att < desc->natts; att++)
	{
		const char *name = NameStr(TupleDescAttr(desc, att)->attname);
		Oid			type = TupleDescAttr(desc, att)->atttypid;

		if (TupleDescAttr(desc, att)->attisdropped)
			continue;
		for (column = 0; column < lengthof(source_columns); column++)
			if (strcmp(name, source_columns[column].name) == 0)
				break;
		if (column == lengthof(source_columns))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of \"%s\" is none of an event", name,
							RelationGetRelationName(rel)),
					 errhint("The columns are aggregate_type, aggregate_id, event_type and payload, sequence or position or both, and, if you like, created_at, event_id, event_version, metadata, tags and tenant_id. Make a view that has them.")));
		if (!can_coerce_type(1, &type, &source_columns[column].oid, COERCION_EXPLICIT))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of \"%s\" is of type %s, which cannot be cast to %s", name,
							RelationGetRelationName(rel), format_type_be(type),
							source_columns[column].type)));
		source->has[column] = true;
		source->has_sequence |= strcmp(name, "sequence") == 0;
		source->has_position |= strcmp(name, "position") == 0;
		source->has_tags |= strcmp(name, "tags") == 0;
	}
	for (column = 0; column < lengthof(source_columns); column++)
		if (!source->has[column] && source_columns[column].otherwise == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("\"%s\" has no column \"%s\"", RelationGetRelationName(rel),
							source_columns[column].name)));
	if (!source->has_sequence && !source->has_position)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("\"%s\" has neither a column \"sequence\" nor \"position\"",
						RelationGetRelationName(rel)),
				 errhint("One of them must say in which order the events of a stream come.")));
}

/* Read it, once, and make its rows known to later statements as `n`. */
static void
read_source(Source *source)
{
	DestReceiver *receiver = CreateTuplestoreDestReceiver();
	EphemeralNamedRelation rows = palloc0(sizeof(EphemeralNamedRelationData));

	source->rows = tuplestore_begin_heap(false, false, work_mem);
	/* what is toasted may be gone when the old system goes on */
	SetTuplestoreDestReceiverParams(receiver, source->rows, CurrentMemoryContext, true, NULL, NULL);
	if (run(source, rows_of(source), NULL, receiver) != SPI_OK_SELECT)
		elog(ERROR, "could not read the source of an import");
	receiver->rDestroy(receiver);

	rows->md.name = "n";
	rows->md.tupdesc = row_desc();
	rows->md.enrtype = ENR_NAMED_TUPLESTORE;
	rows->md.enrtuples = (double) tuplestore_tuple_count(source->rows);
	rows->reldata = source->rows;
	if (SPI_register_relation(rows) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of an import");
}

/* Texts are compared as the log does it. */
static TupleDesc
row_desc(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(lengthof(row_columns));
	AttrNumber	column;

	for (column = 1; column <= (AttrNumber) lengthof(row_columns); column++)
	{
		Oid			type = row_columns[column - 1].type;

		TupleDescInitEntry(desc, column, row_columns[column - 1].name, type, -1, 0);
		if (type == TEXTOID)
			TupleDescInitEntryCollation(desc, column, C_COLLATION_OID);
	}
	return desc;
}

/* The statement that reads them: row_columns, in their order. */
static char *
rows_of(const Source *source)
{
	StringInfoData sql;
	size_t		column;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "WITH rows AS (SELECT ");
	for (column = 0; column < lengthof(source_columns); column++)
	{
		const SourceColumn *c = &source_columns[column];

		char	   *value = source->has[column] ?
			psprintf("CAST(s.%s AS %s)", quote_identifier(c->name), c->type) :
			psprintf("CAST(NULL AS %s)", c->type);

		appendStringInfo(&sql, "%s%s%s%s%s%s", column == 0 ? "" : ", ",
						 c->otherwise ? "coalesce(" : "", value,
						 c->otherwise ? psprintf(", %s)", c->otherwise) : "",
						 strcmp(c->type, "text") == 0 ? " COLLATE \"C\"" : "", " AS ");
		appendStringInfoString(&sql, quote_identifier(c->name));
	}
	appendStringInfo(&sql, " FROM %s AS s)"
					 " SELECT tenant_id, aggregate_type, aggregate_id, sequence, \"position\","
					 " event_type, event_version, payload, metadata, created_at, tags,"
					 " coalesce(event_id, CAST(md5(CAST(jsonb_build_array(tenant_id, aggregate_type, aggregate_id, %s) AS text)) AS uuid)) AS event_id,"
					 " row_number() OVER stream AS number,"
					 " lag(sequence) OVER stream AS sequence_before,"
					 " max(\"position\") OVER (stream ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS position_before,"
					 " " RANK("\"position\"") " AS rank, " RANK("created_at") " AS rank_of_time"
					 " FROM rows WINDOW stream AS (PARTITION BY tenant_id, aggregate_type, aggregate_id ORDER BY %s)",
					 source->name,
					 source->has_sequence ? "sequence" : "\"position\"",
					 source->has_sequence ? "sequence" : "\"position\"");
	return sql.data;
}

/* Is it a history, and is that what the log has of it already? */
static void
check_source(const Source *source)
{
	const char *place = source->has_sequence ? "sequence" : "\"position\"";
	char	   *sql = psprintf("SELECT n.aggregate_type, n.aggregate_id, n.number, CASE"
							   " WHEN n.%s IS NULL THEN 'null'"
							   " WHEN n.sequence_before >= n.sequence OR (n.sequence IS NULL AND n.position_before >= n.\"position\") THEN 'twice'"
							   " WHEN n.position_before >= n.\"position\" THEN 'order' ELSE 'taken' END AS problem"
							   " FROM n LEFT JOIN cqrs_es.events AS e ON " SAME_PLACE
							   " WHERE n.%s IS NULL OR n.sequence_before >= n.sequence"
							   " OR n.position_before >= n.\"position\" OR e.event_id <> n.event_id"
							   " ORDER BY n.aggregate_type, n.aggregate_id, n.number LIMIT 1",
							   place, place);

	if (run(source, sql, NULL, NULL) != SPI_OK_SELECT)
		elog(ERROR, "could not read the source of an import");
	if (SPI_processed > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		report_problem(&row);
	}
}

static void
report_problem(const QueryRow *row)
{
	const char *problem = InternalQueryText(row, "problem");
	char	   *stream = psprintf("%s/%s", InternalQueryText(row, "aggregate_type"),
								  InternalQueryText(row, "aggregate_id"));
	const char *number = InternalQueryText(row, "number");

	if (strcmp(problem, "taken") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("event %s of stream \"%s\" is in the log already, with another id", number, stream),
				 errhint("Import a stream before anybody appends to it; and when you import again, all of it from its beginning, with the same ids.")));
	if (strcmp(problem, "order") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event %s of stream \"%s\" has no greater position than those before it", number, stream),
				 errdetail("Sequences say how the events of a stream follow each other, positions how those of all streams do.")));
	if (strcmp(problem, "twice") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event %s of stream \"%s\" has the same place as the one before it", number, stream)));
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("event %s of stream \"%s\" does not say where in the stream it stands", number, stream)));
}

/* Append what is not there yet; how many. */
static uint64
insert_events(const Source *source)
{
	static const char sql[] =
	"INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence,"
	" event_type, event_version, payload, metadata, event_id, created_at)"
	" SELECT n.aggregate_type, n.aggregate_id, n.tenant_id, n.number,"
	" n.event_type, n.event_version, n.payload,"
	" CASE WHEN n.sequence <> n.number"
	" THEN n.metadata || jsonb_build_object('imported_sequence', n.sequence) ELSE n.metadata END,"
	" n.event_id, n.created_at"
	" FROM n WHERE " NOT_THERE " ORDER BY " IN_ORDER;

	if (run(source, sql, NULL, NULL) != SPI_OK_INSERT)
		elog(ERROR, "could not import events");
	return SPI_processed;
}

/* The same, with the tags that the source has. */
static uint64
insert_tagged(const Source *source)
{
	static const char sql[] = "SELECT " IMPORT_TAGS_COLUMNS
		" FROM n WHERE n.tags <> '{}' AND " NOT_THERE " ORDER BY " IN_ORDER;
	ImportTags *tags = ImportTagsBegin();
	volatile uint64 imported = 0;

	PG_TRY();
	{
		if (run(source, sql, NULL, ImportTagsReceiver(tags)) != SPI_OK_SELECT)
			elog(ERROR, "could not read the tags of an import");
		imported = insert_events(source);
	}
	PG_FINALLY();
	{
		ImportTagsEnd(tags);
	}
	PG_END_TRY();
	return imported;
}

/*
 * Is all that was read in the log now, and what was appended behind `before` in its
 * order?  Fills in streams, events, (left out), and the last position.
 */
static void
check_log(const Source *source, int64 before, Datum *values, bool *nulls)
{
	char	   *sql = psprintf(
							   "SELECT count(*) FILTER (WHERE number = 1) AS streams, count(*) AS events,"
							   " max(global_position) AS last_position,"
							   " count(*) FILTER (WHERE same IS NOT TRUE) AS wrong,"
							   " count(*) FILTER (WHERE global_position > $1 AND global_position <= position_in_front) AS out_of_order,"
							   " min(stream) FILTER (WHERE same IS NOT TRUE OR global_position > $1 AND global_position <= position_in_front) AS stream"
							   " FROM (SELECT n.number, e.global_position, concat(n.aggregate_type, '/', n.aggregate_id) AS stream,"
							   " (e.event_id = n.event_id AND e.event_type = n.event_type AND e.event_version = n.event_version"
							   " AND (e.payload = n.payload OR %s) AND (n.created_at IS NULL OR e.created_at = n.created_at)) AS same,"
							   " lag(e.global_position) OVER (PARTITION BY e.global_position > $1 ORDER BY " IN_ORDER ") AS position_in_front"
							   " FROM n LEFT JOIN cqrs_es.events AS e ON " SAME_PLACE ") AS compared",
		/* what is stored encrypted cannot be compared here */
							   PersonalDataCondition("n.event_type"));
	QueryRow	row;
	int64		wrong;
	int64		out_of_order;

	row = query_row(source, sql, before);
	wrong = DatumGetInt64(InternalQueryDatum(&row, "wrong", NULL));
	out_of_order = DatumGetInt64(InternalQueryDatum(&row, "out_of_order", NULL));
	if (wrong > 0 || out_of_order > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log is not what the source says"),
				 errdetail("Events of the source that are missing or differ: %lld; that are out of order: %lld; in stream \"%s\" for instance.",
						   (long long) wrong, (long long) out_of_order, InternalQueryText(&row, "stream")),
				 errhint("Nothing was imported. Does a trigger of yours change events, or the source give other ones each time?")));
	values[0] = InternalQueryDatum(&row, "streams", NULL);
	values[1] = InternalQueryDatum(&row, "events", NULL);
	values[3] = InternalQueryDatum(&row, "last_position", &nulls[3]);
}

/* Has each event of the source the tags that it says, those as well that were there before? */
static void
check_tags(const Source *source)
{
	static const char sql[] =
	"SELECT n.tenant_id, e.global_position, e.event_type, n.tags,"
	" n.number, concat(n.aggregate_type, '/', n.aggregate_id)"
	" FROM n JOIN cqrs_es.events AS e ON " SAME_PLACE " WHERE n.tags <> '{}'";
	TagsCheck	check = {
		.receiver = {.receiveSlot = check_tags_of,.rStartup = begin_check,.rShutdown = end_check,
		.rDestroy = end_check,.mydest = DestNone},
		.memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es import", ALLOCSET_DEFAULT_SIZES)
	};

	(void) run(source, sql, NULL, &check.receiver);
	MemoryContextDelete(check.memory);
}

static void
begin_check(DestReceiver * receiver, int operation, TupleDesc desc)
{
}

static void
end_check(DestReceiver * receiver)
{
}

static bool
check_tags_of(TupleTableSlot *slot, DestReceiver * receiver)
{
	TagsCheck  *check = (TagsCheck *) receiver;
	MemoryContext caller = MemoryContextSwitchTo(check->memory);

	slot_getallattrs(slot);
	if (!TaggingHas(DatumGetTextPP(slot->tts_values[0]), DatumGetInt64(slot->tts_values[1]),
					DatumGetTextPP(slot->tts_values[2]), DatumGetArrayTypeP(slot->tts_values[3])))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log is not what the source says"),
				 errdetail("Event %lld of stream \"%s\" lacks tags.",
						   (long long) DatumGetInt64(slot->tts_values[4]),
						   TextDatumGetCString(slot->tts_values[5])),
				 errhint("Nothing was imported. An event that is in the log already gets no other tags, but by define_tags() and retag().")));
	MemoryContextSwitchTo(caller);
	MemoryContextReset(check->memory);
	return true;
}

static QueryRow
query_row(const Source *source, const char *sql, int64 argument)
{
	if (run(source, sql, &argument, NULL) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not compare the source of an import with the log");
	return InternalQueryRow(0);
}

/*
 * Run a statement, with one argument or none; its rows go to the receiver, if there is one.
 * Its errors say what is imported, where they would show the statement, of which whoever
 * calls knows nothing.
 */
static int
run(const Source *source, const char *sql, const int64 *argument, DestReceiver * receiver)
{
	ParamListInfo params = argument ? makeParamList(1) : NULL;
	SPIExecuteOptions options = {.params = params,.dest = receiver};
	MemoryContext caller = CurrentMemoryContext;
	volatile int result = 0;

	if (argument)
	{
		params->params[0].value = Int64GetDatum(*argument);
		params->params[0].isnull = false;
		params->params[0].pflags = PARAM_FLAG_CONST;
		params->params[0].ptype = INT8OID;
	}
	PG_TRY();
	{
		result = SPI_execute_extended(sql, &options);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		name_source(error, source, sql);
		ReThrowError(error);
	}
	PG_END_TRY();
	return result;
}

/* The line of the context that has the statement, in whatever language, becomes one of ours. */
static void
name_source(ErrorData *error, const Source *source, const char *sql)
{
	const char *found = error->context ? strstr(error->context, sql) : NULL;
	const char *begin = found;

	/*
	 * an error of the parser would have it in another field; but what we cast can be
	 * cast
	 */
	if (found == NULL)
		return;					/* not reached */
	while (begin > error->context && begin[-1] != '\n')
		begin--;
	found += strlen(sql);
	found += strcspn(found, "\n");
	error->context = psprintf("%.*simporting events from %s%s",
							  (int) (begin - error->context), error->context, source->name, found);
}
