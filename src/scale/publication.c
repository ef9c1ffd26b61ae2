/*-------------------------------------------------------------------------
 * publication.c
 *	  A log is published, and handed over.
 *
 * There are two publications: the log, with all that tells of it (tags, how far it is
 * settled, jumps, whether it was handed over), and the declarations that one needs to read it.
 * What acts for somebody is in neither: handlers, deciders, consumers name roles and tables of
 * this database, and would run there with the rights of whoever is called the same.
 *
 * The statements are run below the server's event triggers.  For ours, a table that is
 * published would be one that was changed, and the log would leave the extension, so that dumps
 * have it; but a dump need not have what publish_log() makes again.
 *
 * Readers elsewhere are told how far the log is settled by the worker of this database (a
 * chore: worker.c), which is started by whoever appends: a few times a second at most, and
 * not while nothing happens.
 *
 * Handing over.  Whoever draws a position holds a lock of the sequence to the end of its
 * transaction, and looks at our row behind it.  So whoever takes that lock alone and then
 * writes the row knows that all which will ever be appended here was committed before: it
 * lies before that row in the stream of changes, and a follower that has the row has everything.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_type_d.h"
#include "commands/publicationcmds.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "log/events.h"
#include "log/horizon.h"
#include "log/position.h"
#include "log/published.h"
#include "log/publisher.h"
#include "async/worker.h"
#include "scale/log_link.h"
#include "scale/publication.h"

/* so long between two words on how far the log is settled */
#define TELL_MS		100

/* in the order in which they are copied, more or less; names are constants, and need no quotes */
#define LOG_TABLES "cqrs_es.published_logs, cqrs_es.log_histories, cqrs_es.event_tags, cqrs_es.events, cqrs_es.published_positions"
#define DECLARATION_TABLES "cqrs_es.aggregates, cqrs_es.boundaries, cqrs_es.reducers, cqrs_es.upcasters, cqrs_es.tag_definitions," \
	" cqrs_es.personal_data, cqrs_es.personal_data_keys, cqrs_es.forgotten_subjects"

/* what was told last, by this process: up to which number drawn; -1: not to its end */
static int64 told_number = -1;
static TimestampTz told_at = 0;

PG_FUNCTION_INFO_V1(cqrs_es_publish_log);
PG_FUNCTION_INFO_V1(cqrs_es_unpublish_log);
PG_FUNCTION_INFO_V1(cqrs_es_hand_over_log);
PG_FUNCTION_INFO_V1(cqrs_es_take_back_log);

static void publish(const char *publication, const char *tables);
static void drop(const char *publication);
static void drop_slots(void);
static void require_no_followers_of_another(void);
static bool is_there(InternalQuery *query);
static void require_published(void);
static void write_row(void);
static void write_handed_over(int64 last_position);
static bool is_due(void);
static bool tell(void);

void
PublicationInit(void)
{
	static const WorkerChore chore = {.is_due = is_due,.run = tell};

	WorkerSetChore(&chore);
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: publish_log().  Makes or mends the publications, and tells how far the log is settled.
 * Raises 25006, 42501 for who may not publish, 55000 where the server cannot, or where there
 * are followers of a log that this database had before; QE601.
 */
Datum
cqrs_es_publish_log(PG_FUNCTION_ARGS)
{
	ReadOnlyPrevent(fcinfo);
	EventsRequireRights(ACL_SELECT);
	if (wal_level < WAL_LEVEL_LOGICAL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a log can be published only with wal_level = logical"),
				 errhint("Set it in postgresql.conf, and restart the server.")));
	if (LogLinkGet()->follows)
		ereport(ERROR,
				(errcode(ERRCODE_LOG_FOLLOWS),
				 errmsg("a log that is followed cannot be published"),
				 errhint("Let others follow its publisher.")));
	require_no_followers_of_another();
	publish(LOG_LINK_PUBLICATION, LOG_TABLES);
	publish(LOG_LINK_DECLARATIONS, DECLARATION_TABLES);
	write_row();
	(void) PublisherTell(0);
	PG_RETURN_VOID();
}

/*
 * SQL: unpublish_log().  Drops the publications, and the slots of those who followed; of
 * one that is followed at this moment 55006.  A log that was handed over stays so.
 */
Datum
cqrs_es_unpublish_log(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.published_logs WHERE node_id OPERATOR(pg_catalog.=) $1"
		" AND publisher OPERATOR(pg_catalog.=) $2 AND handed_over_at IS NULL",
		.nargs = 2,.argtypes = {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(PositionNode()), PublishedName()};
	RoleSwitch	saved;

	ReadOnlyPrevent(fcinfo);
	drop(LOG_LINK_PUBLICATION);
	drop(LOG_LINK_DECLARATIONS);
	SPI_connect();
	saved = RoleSwitchToOwner("published_logs");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
	/* that is not undone by a rollback */
	drop_slots();
	PG_RETURN_VOID();
}

/*
 * SQL: hand_over_log().  Nothing is appended any more when this transaction commits; returns
 * the last position that was drawn.  Waits for all who are appending.  Called again it says the same.
 * Raises 25006, 55000 where the log is not published.
 */
Datum
cqrs_es_hand_over_log(PG_FUNCTION_ARGS)
{
	int64		last;

	ReadOnlyPrevent(fcinfo);
	require_published();
	if (PositionFirstOwn() != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("hand_over_log() cannot be called in a transaction that has appended")));
	LockRelationOid(PositionSequence(), ShareRowExclusiveLock);
	if (LogLinkGet()->handed_over)
		PG_RETURN_INT64(LogLinkGet()->last_position);
	last = PositionOfNumber(PositionLastNumber());
	(void) PublisherTell(HorizonDeadline());
	write_handed_over(last);
	PG_RETURN_INT64(last);
}

/* SQL: take_back_log().  Positions are drawn here again; nobody must have taken the log over. */
Datum
cqrs_es_take_back_log(PG_FUNCTION_ARGS)
{
	ReadOnlyPrevent(fcinfo);
	require_published();
	write_handed_over(-1);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * publications
 *-------------------------------------------------------------------------
 */

/* The tree of one statement, whose names and literals are quoted. */
Node *
PublicationParse(const char *sql)
{
	return linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT))->stmt;
}

/* Changes of all kinds: personal data may be removed below the triggers, which must reach those who follow. */
static void
publish(const char *publication, const char *tables)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *statement;

	if (!OidIsValid(get_publication_oid(publication, true)))
	{
		statement = PublicationParse(psprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true)",
											  publication, tables));
		(void) CreatePublication(pstate, castNode(CreatePublicationStmt, statement));
	}
	else
	{
		statement = PublicationParse(psprintf("ALTER PUBLICATION %s SET TABLE %s", publication, tables));
		AlterPublication(pstate, castNode(AlterPublicationStmt, statement));
		CommandCounterIncrement();
		statement = PublicationParse(psprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true,"
											  " publish = 'insert, update, delete, truncate')", publication));
		AlterPublication(pstate, castNode(AlterPublicationStmt, statement));
	}
	CommandCounterIncrement();
	free_parsestate(pstate);
}

static void
drop(const char *publication)
{
	Oid			oid = get_publication_oid(publication, true);
	ObjectAddress address;

	if (!OidIsValid(oid))
		return;
	ObjectAddressSet(address, PublicationRelationId, oid);
	if (!compat_publication_ownercheck(oid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_PUBLICATION, publication);
	performDeletion(&address, DROP_RESTRICT, 0);
}

/* The server says which is active: 55006. */
static void
drop_slots(void)
{
	SPI_connect();
	if (SPI_execute("SELECT pg_catalog.pg_drop_replication_slot(s.slot_name) FROM pg_catalog.pg_replication_slots AS s"
					" WHERE s.slot_type OPERATOR(pg_catalog.=) 'logical' AND s.plugin OPERATOR(pg_catalog.=) 'pgoutput'"
					" AND s.database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
					" AND pg_catalog.starts_with(s.slot_name::pg_catalog.text, '" PUBLICATION_SLOT_PREFIX "')", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not drop slots");
	SPI_finish();
}

/*
 * Slots in the database of a log that was never published are of those who followed one that the
 * extension was dropped with.  Publications are found again by their names, so these would receive
 * the new log behind the old one: other events at the same positions.  (A dump has no slots, and what
 * was upgraded has a row.)
 */
static void
require_no_followers_of_another(void)
{
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.published_logs WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	static InternalQuery slots = {.sql = "SELECT FROM cqrs_es.log_followers"};

	if (!is_there(&row) && is_there(&slots))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are replication slots of those who followed another log of this database"),
				 errdetail("They would receive this one behind the other."),
				 errhint("DROP SUBSCRIPTION where it is followed; then unpublish_log() here drops slots that are left.")));
}

/* Does the query, of our node, give a row? */
static bool
is_there(InternalQuery *query)
{
	Datum		value = Int32GetDatum(PositionNode());
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchToOwner("published_logs");
	found = InternalQueryRead(query, &value, NULL, GetLatestSnapshot()) > 0;
	RoleSwitchBack(&saved);
	SPI_finish();
	return found;
}

static void
require_published(void)
{
	EventsRequireRights(ACL_SELECT);
	if (!LogLinkGet()->publishes)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log is not published"),
				 errhint("publish_log() publishes it.")));
}

/* Our row, in place of one of whom this database has taken the log over. */
static void
write_row(void)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.published_logs AS p (node_id, publisher) VALUES ($1, $2)"
		" ON CONFLICT (node_id) DO UPDATE SET publisher = EXCLUDED.publisher, published_since = EXCLUDED.published_since,"
		" handed_over_at = NULL, last_position = NULL"
		" WHERE p.publisher OPERATOR(pg_catalog.<>) EXCLUDED.publisher",
		.nargs = 2,.argtypes = {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(PositionNode()), PublishedName()};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_logs");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/* -1: it is not. */
static void
write_handed_over(int64 last_position)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.published_logs SET last_position = nullif($3, -1),"
		" handed_over_at = CASE WHEN $3 OPERATOR(pg_catalog.>=) 0 THEN pg_catalog.clock_timestamp() END"
		" WHERE node_id OPERATOR(pg_catalog.=) $1 AND publisher OPERATOR(pg_catalog.=) $2",
		.nargs = 3,.argtypes = {INT4OID, TEXTOID, INT8OID}
	};
	Datum		values[3] = {Int32GetDatum(PositionNode()), PublishedName(), Int64GetDatum(last_position)};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_logs");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/*-------------------------------------------------------------------------
 * the worker's chore
 *-------------------------------------------------------------------------
 */

/* Has anything been drawn since all was told, and not just now? */
static bool
is_due(void)
{
	return LogLinkGet()->publishes && PositionLastNumber() != told_number &&
		TimestampDifferenceExceeds(told_at, GetCurrentTimestamp(), TELL_MS);
}

/* Say how far the log is settled, if it is time; is there more to say soon? */
static bool
tell(void)
{
	if (is_due())
	{
		/* before anything is looked at: what is drawn later is for later */
		int64		number = PositionLastNumber();

		told_at = GetCurrentTimestamp();
		(void) PublisherTell(0);
		told_number = HorizonIsSettled(PositionOfNumber(number)) ? number : -1;
	}
	return LogLinkGet()->publishes && told_number < 0;
}
