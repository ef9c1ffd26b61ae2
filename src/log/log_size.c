/*-------------------------------------------------------------------------
 * log_size.c
 *	  How much is in the log: events, streams, bytes; for monitors.
 *
 * Who asks does so every few seconds, and of a log of any length, so nothing here reads
 * all of it.  What is few is counted; what is many is estimated, and the answer says so:
 *
 *	events		rows on a page, as the last vacuum or analyze found them, times pages of today
 *	streams		each has just one event with sequence 1, and no sequence is more frequent.
 *				So the server's statistics, which know how frequent frequent values are,
 *				know how many of the events begin a stream.  Where streams are so long that
 *				even these are rare, they know how many different ids there are.
 *
 * Streams are counted by jumps in the primary key, from one to the next.  The planner
 * must not do otherwise, which would read the whole log for each jump: a plan that was made
 * for an empty log would be kept while it grows.  A log of somebody's own may have no index
 * in that order; then streams are estimated, few or not.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/role_switch.h"

/* so many are counted: a few milliseconds */
#define MAX_EVENTS	10000
#define MAX_STREAMS	1000

PG_FUNCTION_INFO_V1(cqrs_es_log_size);

static int64 count_events(void);
static int64 count_streams(void);
static bool has_index(void);
static int64 count(InternalQuery *query, int64 most);
static QueryRow estimate(int64 events, int64 streams);

/*
 * SQL: log_size(OUT events, OUT events_estimated, OUT streams, OUT streams_estimated,
 * OUT bytes).  Of all tenants, whoever calls it.
 */
Datum
cqrs_es_log_size(PG_FUNCTION_ARGS)
{
	int64		events;
	int64		streams;
	Datum		values[5];
	bool		nulls[5] = {false};
	TupleDesc	desc;
	RoleSwitch	saved;
	QueryRow	estimated;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	SPI_connect();
	saved = RoleSwitchToOwner("events");
	events = count_events();
	streams = has_index() ? count_streams() : -1;
	estimated = estimate(events, streams >= 0 ? streams : Min(events, 1));
	values[1] = BoolGetDatum(events > MAX_EVENTS);
	values[0] = values[1] ? InternalQueryDatum(&estimated, "events", NULL) : Int64GetDatum(events);
	values[3] = BoolGetDatum(streams < 0 || streams > MAX_STREAMS);
	values[2] = values[3] ? InternalQueryDatum(&estimated, "streams", NULL) : Int64GetDatum(streams);
	values[4] = InternalQueryDatum(&estimated, "bytes", &nulls[4]);
	RoleSwitchBack(&saved);
	SPI_finish();
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* At most one more than the limit. */
static int64
count_events(void)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.count(*) AS n FROM (SELECT FROM cqrs_es.events LIMIT $1) AS e",
		.nargs = 1,.argtypes = {INT8OID}
	};

	return count(&query, MAX_EVENTS);
}

/* Likewise.  Changes settings, until RoleSwitchBack. */
static int64
count_streams(void)
{
	static InternalQuery query = {
		.sql = "WITH RECURSIVE found (aggregate_type, aggregate_id, tenant_id) AS ("
		"(SELECT e.aggregate_type, e.aggregate_id, e.tenant_id FROM cqrs_es.events AS e"
		" ORDER BY e.aggregate_type, e.aggregate_id, e.tenant_id LIMIT 1)"
		" UNION ALL SELECT n.* FROM found AS f CROSS JOIN LATERAL ("
		"SELECT e.aggregate_type, e.aggregate_id, e.tenant_id FROM cqrs_es.events AS e"
		" WHERE (e.aggregate_type, e.aggregate_id, e.tenant_id) OPERATOR(pg_catalog.>)"
		" (f.aggregate_type, f.aggregate_id, f.tenant_id)"
		" ORDER BY e.aggregate_type, e.aggregate_id, e.tenant_id LIMIT 1) AS n)"
		" SELECT pg_catalog.count(*) AS n FROM (SELECT FROM found LIMIT $1) AS s",
		.nargs = 1,.argtypes = {INT8OID}
	};
	static const char *const settings[][2] = {
		{"enable_indexscan", "on"}, {"enable_indexonlyscan", "on"},
		{"enable_seqscan", "off"}, {"enable_bitmapscan", "off"}
	};
	size_t		i;

	for (i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return count(&query, MAX_STREAMS);
}

/* Is there a whole btree of streams, one after the other, in the order of count_streams? */
static bool
has_index(void)
{
	static InternalQuery query = {
		.sql = "SELECT FROM pg_catalog.pg_index AS i"
		" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid"
		" JOIN pg_catalog.pg_am AS m ON m.oid OPERATOR(pg_catalog.=) c.relam"
		" WHERE i.indrelid OPERATOR(pg_catalog.=) 'cqrs_es.events'::pg_catalog.regclass"
		" AND i.indisvalid AND i.indpred IS NULL AND m.amname OPERATOR(pg_catalog.=) 'btree'"
		" AND ARRAY(SELECT a.attname::text FROM pg_catalog.generate_series(0, 2) AS n"
		" JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid"
		" AND a.attnum OPERATOR(pg_catalog.=) i.indkey[n]"
		" AND a.attcollation OPERATOR(pg_catalog.=) i.indcollation[n] ORDER BY n)"
		" OPERATOR(pg_catalog.=) '{aggregate_type,aggregate_id,tenant_id}'::text[]"
	};

	return InternalQueryRead(&query, NULL, NULL, InternalQueryFreshSnapshot()) > 0;
}

static int64
count(InternalQuery *query, int64 most)
{
	Datum		limit = Int64GetDatum(most + 1);
	QueryRow	row;

	(void) InternalQueryRead(query, &limit, NULL, InternalQueryFreshSnapshot());
	row = InternalQueryRow(0);
	return DatumGetInt64(InternalQueryDatum(&row, "n", NULL));
}

/* A row with estimates, of at least these, and the size. */
static QueryRow
estimate(int64 events, int64 streams)
{
	static InternalQuery query = {
		.sql = "SELECT greatest($1, t.events)::bigint AS events, t.bytes,"
		" greatest($2, least(t.events, coalesce(b.frequency OPERATOR(pg_catalog.*) t.events,"
		" CASE WHEN i.n_distinct OPERATOR(pg_catalog.<) 0 THEN (OPERATOR(pg_catalog.-) i.n_distinct)"
		" OPERATOR(pg_catalog.*) t.events ELSE i.n_distinct END, $2)))::bigint AS streams"
		" FROM (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid))::bigint AS bytes,"
		" pg_catalog.sum(CASE WHEN c.reltuples OPERATOR(pg_catalog.>=) 0 AND c.relpages OPERATOR(pg_catalog.>) 0"
		" THEN c.reltuples::float8 OPERATOR(pg_catalog./) c.relpages OPERATOR(pg_catalog.*) pg_catalog.pg_relation_size(c.oid)"
		" OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::float8"
		" ELSE pg_catalog.pg_stat_get_live_tuples(c.oid) END) AS events"
		/* of a table that is not partitioned pg_partition_tree knows nothing */
		" FROM (SELECT p.relid::oid FROM pg_catalog.pg_partition_tree('cqrs_es.events'::pg_catalog.regclass) AS p"
		" UNION SELECT 'cqrs_es.events'::pg_catalog.regclass::oid) AS p (relid)"
		" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) p.relid"
		" WHERE c.relkind OPERATOR(pg_catalog.<>) 'p') AS t"
		" LEFT JOIN LATERAL (SELECT v.frequency FROM pg_catalog.pg_stats AS s,"
		" ROWS FROM (pg_catalog.unnest(s.most_common_vals::text::bigint[]),"
		" pg_catalog.unnest(s.most_common_freqs)) AS v (value, frequency)"
		" WHERE s.schemaname OPERATOR(pg_catalog.=) 'cqrs_es' AND s.tablename OPERATOR(pg_catalog.=) 'events'"
		" AND s.attname OPERATOR(pg_catalog.=) 'sequence' AND v.value OPERATOR(pg_catalog.=) 1"
		" ORDER BY s.inherited DESC LIMIT 1) AS b ON true"
		" LEFT JOIN LATERAL (SELECT s.n_distinct FROM pg_catalog.pg_stats AS s"
		" WHERE s.schemaname OPERATOR(pg_catalog.=) 'cqrs_es' AND s.tablename OPERATOR(pg_catalog.=) 'events'"
		" AND s.attname OPERATOR(pg_catalog.=) 'aggregate_id' ORDER BY s.inherited DESC LIMIT 1) AS i ON true",
		.nargs = 2,.argtypes = {INT8OID, INT8OID}
	};
	Datum		counted[2] = {Int64GetDatum(events), Int64GetDatum(streams)};

	(void) InternalQueryRead(&query, counted, NULL, InternalQueryFreshSnapshot());
	return InternalQueryRow(0);
}
