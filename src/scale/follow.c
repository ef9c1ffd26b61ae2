/*-------------------------------------------------------------------------
 * follow.c
 *	  A database follows the log of another one, and takes it over.
 *
 * follow_log() makes a subscription of the server for what publish_log() publishes there: both
 * publications in one subscription, so that one apply worker commits all changes in the order
 * of their commits.  First it asks the publisher what would else show later, as an error of the apply
 * worker, or not at all: another version, other columns, rows that the role may not see (a
 * role for which row security is active copies one tenant's, and no error).
 *
 * The statement is made and run here, and not as SQL text: errors, logs and pg_stat_statements
 * would show the text, and so the password.  And a slot cannot be made by a statement that can
 * be rolled back.  So we make it, by a connection of our own, before anything else: it is older than the
 * copies, as it has to be.  What dies in between leaves a slot that nobody reads; its name is
 * made of who follows, so the next call finds it, and makes it anew.
 *
 * Whoever follows has no events of that node, and no position is drawn until the log is
 * taken over: the lock of the sequence, and the guard behind it (log_link.c).
 *
 * take_over_log() waits for the row of hand_over_log(), which comes behind all that was ever
 * appended.  It stops the apply worker and drops the subscription, without its slot, so that a
 * rollback undoes it (the server keeps pg_subscription locked until the end, so no worker is started again
 * meanwhile).  With force nobody handed over: what has not come is lost to this database, so
 * positions jump, as after any failover (log_history.c).
 *
 * The log is the same one: the identity that it was created with is taken over at the
 * beginning, and later ones are received.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_type_d.h"
#include "commands/sequence.h"
#include "commands/subscriptioncmds.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_node.h"
#include "replication/walreceiver.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "base/wakeup.h"
#include "log/events.h"
#include "log/log_history.h"
#include "log/position.h"
#include "log/published.h"
#include "scale/log_link.h"
#include "scale/publication.h"
#include "scale/publisher_link.h"

/* looks again after so long at most, when nobody has woken it */
#define LOOK_MS		100

/* the columns of what is received, the same text on both sides */
#define COLUMNS_SQL \
	"SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', '" \
	" ORDER BY c.relname, a.attname)" \
	" FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) a.attrelid" \
	" WHERE c.relnamespace OPERATOR(pg_catalog.=) 'cqrs_es'::pg_catalog.regnamespace AND a.attnum OPERATOR(pg_catalog.>) 0" \
	" AND NOT a.attisdropped AND a.attgenerated OPERATOR(pg_catalog.=) ''" \
	" AND c.relname IN ('events', 'event_tags', 'published_positions', 'published_logs', 'log_histories'," \
	" 'aggregates', 'boundaries', 'reducers', 'upcasters', 'tag_definitions'," \
	" 'personal_data', 'personal_data_keys', 'forgotten_subjects')"

/* What a publisher says of itself. */
typedef struct Publisher
{
	int			node_id;
	char	   *name;
	char	   *log_number;
	char	   *nodes;			/* an array: of whose logs it has events */
} Publisher;

PG_FUNCTION_INFO_V1(cqrs_es_follow_log);
PG_FUNCTION_INFO_V1(cqrs_es_take_over_log);

static void follow(WalReceiverConn *link, const char *connection, bool declarations);
static Publisher ask_publisher(WalReceiverConn *link);
static void refuse_publisher(const char *why, const char *hint);
static char *subscription_name(int node_id);
static char *slot_name(int node_id);
static void make_slot(WalReceiverConn *link, const char *slot);
static void drop_slot(WalReceiverConn *link, const char *slot);
static void require_no_subscription(int node_id);
static void receive(const Publisher *publisher, const char *connection, const char *slot, bool declarations);
static void require_no_other_way(const Publisher *publisher);
static void require_nothing_here(const Publisher *publisher, bool declarations);
static bool is_there(const char *sql, int node_id);
static void clear_received(int node_id);
static void write_row(const Publisher *publisher, bool declarations);
static char *followed_subscription(int node_id);
static bool await_handing_over(const char *subscription, int node_id, TimestampTz deadline, int64 *last_position);
static int64 handed_over_position(int node_id);
static void drop_subscription(const char *subscription);
static void forget_row(int node_id);
static void run_internal(InternalQuery *query, Datum *values);

/*-------------------------------------------------------------------------
 * following
 *-------------------------------------------------------------------------
 */

/*
 * SQL: follow_log(connection, declarations).  Raises 25006, 25001 behind changes in the same
 * transaction, 42501 for who is no superuser, 42601 and 08001 for the connection, 42710
 * when it is followed already, 55000 where there is something that it would collide with,
 * QE604 for a publisher that cannot be followed.
 */
Datum
cqrs_es_follow_log(PG_FUNCTION_ARGS)
{
	char	   *connection;
	WalReceiverConn *link;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments of follow_log() must not be null")));
	ReadOnlyPrevent(fcinfo);
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("follow_log() takes a superuser"),
				 errdetail("Tables of the extension are written by the subscription with the rights of its owner.")));
	/* in this cluster the slot would wait for this transaction */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("follow_log() cannot be called after changes in the same transaction"),
				 errhint("COMMIT first.")));
	connection = text_to_cstring(PG_GETARG_TEXT_PP(0));
	link = PublisherLinkOpen(connection);
	PG_TRY();
	{
		follow(link, connection, PG_GETARG_BOOL(1));
	}
	PG_FINALLY();
	{
		PublisherLinkClose(link);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

static void
follow(WalReceiverConn *link, const char *connection, bool declarations)
{
	Publisher	publisher = ask_publisher(link);
	char	   *slot = slot_name(publisher.node_id);

	/* another call would find our slot unused, and make it anew */
	LockRelationOid(ExtensionRelid("followed_logs"), ShareRowExclusiveLock);
	if (strcmp(publisher.name, TextDatumGetCString(PublishedName())) == 0)
		refuse_publisher("A database cannot follow itself.", NULL);
	require_no_subscription(publisher.node_id);
	make_slot(link, slot);
	PG_TRY();
	{
		receive(&publisher, connection, slot, declarations);
	}
	PG_CATCH();
	{
		/* the error that brought us here is the one to be told */
		drop_slot(link, slot);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* Who is it, and can it be followed? */
static Publisher
ask_publisher(WalReceiverConn *link)
{
	Publisher	publisher;
	RoleSwitch	saved;
	char	  **row;

	row = PublisherLinkRow(link,
						   "SELECT (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname OPERATOR(pg_catalog.=) 'cqrs_es'),"
						   " (SELECT pg_catalog.count(*) FROM pg_catalog.pg_publication AS p WHERE p.pubname IN ('"
						   LOG_LINK_PUBLICATION "', '" LOG_LINK_DECLARATIONS "'))::text", 2);
	if (row[0] == NULL)
		refuse_publisher("It has no extension cqrs_es.", "The connection string says which database.");
	if (strcmp(row[0], CQRS_ES_VERSION) != 0)
		refuse_publisher(psprintf("Version %s of cqrs_es is there, and %s here.", row[0], CQRS_ES_VERSION),
						 "Install the same version.");
	if (strcmp(row[1], "2") != 0)
		refuse_publisher("Its log is not published.", "Call publish_log() there.");

	row = PublisherLinkRow(link,
						   "SELECT pg_catalog.row_security_active('cqrs_es.events')::text,"
						   " (pg_catalog.has_schema_privilege('cqrs_es', 'USAGE') AND pg_catalog.bool_and(pg_catalog.has_table_privilege(r.prrelid, 'SELECT')))::text,"
						   " (" COLUMNS_SQL ")"
						   " FROM pg_catalog.pg_publication_rel AS r JOIN pg_catalog.pg_publication AS p ON p.oid OPERATOR(pg_catalog.=) r.prpubid"
						   " WHERE p.pubname IN ('" LOG_LINK_PUBLICATION "', '" LOG_LINK_DECLARATIONS "')", 3);
	if (strcmp(row[0], "true") == 0)
		refuse_publisher("Row security is active for the role, which would copy the events of one tenant.",
						 "Give it BYPASSRLS.");
	if (row[1] == NULL || strcmp(row[1], "true") != 0)
		refuse_publisher("The role may not read all that is published.", "GRANT pg_read_all_data to it, for instance.");
	SPI_connect();
	saved = RoleSwitchToOwner("followed_logs");
	if (SPI_execute(COLUMNS_SQL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read columns");
	if (strcmp(row[2], SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)) != 0)
		refuse_publisher("The columns of its log are not those of the log here.",
						 "Give both logs the same columns of your own.");
	RoleSwitchBack(&saved);
	SPI_finish();

	/* the row that publish_log() writes; a dump that was restored has somebody else's */
	row = PublisherLinkRow(link,
						   "SELECT max(p.node_id)::text, max(p.publisher), max(n.last_value)::text, bool_or(p.handed_over_at IS NOT NULL)::text,"
						   " (SELECT pg_catalog.array_agg(o.node_id)::text FROM cqrs_es.published_logs AS o)"
						   " FROM cqrs_es.log_number_seq AS n CROSS JOIN cqrs_es.published_logs AS p"
						   " WHERE p.publisher OPERATOR(pg_catalog.=) pg_catalog.concat((SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c), '/',"
						   " (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))", 5);
	if (row[0] == NULL)
		refuse_publisher("Its log is not published by this database itself: it is a copy, or was upgraded.", "Call publish_log() there.");
	if (strcmp(row[3], "true") == 0)
		refuse_publisher("Its log has been handed over.", "Follow the database that took it over.");
	publisher.node_id = pg_strtoint32(row[0]);
	publisher.name = row[1];
	publisher.log_number = row[2];
	publisher.nodes = row[4];
	return publisher;
}

static void
refuse_publisher(const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_PUBLISHER_UNFIT),
			 errmsg("the publisher cannot be followed"),
			 errdetail_internal("%s", why),
			 hint ? errhint("%s", hint) : 0));
}

static char *
subscription_name(int node_id)
{
	return psprintf("%s_%d", LOG_LINK_PUBLICATION, node_id);
}

/* One for who follows, wherever it is. */
static char *
slot_name(int node_id)
{
	return psprintf("%s%d_" UINT64_FORMAT "_%u", PUBLICATION_SLOT_PREFIX, node_id, GetSystemIdentifier(), MyDatabaseId);
}

/* Anew, where one was left behind; 55006 when somebody reads it. */
static void
make_slot(WalReceiverConn *link, const char *slot)
{
	char	   *literal = quote_literal_cstr(slot);

	(void) PublisherLinkRow(link, psprintf("SELECT pg_catalog.count(pg_catalog.pg_drop_replication_slot(s.slot_name)::text)::text"
										   " FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name OPERATOR(pg_catalog.=) %s",
										   literal), 1);
	(void) PublisherLinkRow(link, psprintf("SELECT s.slot_name::text FROM pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput') AS s",
										   literal), 1);
}

/* As well as can be; raises nothing. */
static void
drop_slot(WalReceiverConn *link, const char *slot)
{
	WalRcvExecResult *result;
	static const Oid types[] = {TEXTOID};

	result = walrcv_exec(link, psprintf("SELECT pg_catalog.pg_drop_replication_slot('%s')::text", slot), 1, types);
	walrcv_clear_result(result);
}

/* Write down who is followed, and make the subscription. */
static void
receive(const Publisher *publisher, const char *connection, const char *slot, bool declarations)
{
	ParseState *pstate = make_parsestate(NULL);
	bool		is_our_node = publisher->node_id == PositionNode();
	Node	   *statement;

	if (is_our_node)
		LockRelationOid(PositionSequence(), ShareRowExclusiveLock);
	require_no_other_way(publisher);
	require_nothing_here(publisher, declarations);
	clear_received(publisher->node_id);
	if (is_our_node)
		DirectFunctionCall2(setval_oid, ObjectIdGetDatum(ExtensionRelid("log_number_seq")),
							DirectFunctionCall1(int8in, CStringGetDatum(publisher->log_number)));
	write_row(publisher, declarations);
	CommandCounterIncrement();
	statement = PublicationParse(psprintf("CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s%s"
										  " WITH (create_slot = false, slot_name = %s, copy_data = true)",
										  subscription_name(publisher->node_id), quote_literal_cstr(connection),
										  LOG_LINK_PUBLICATION, declarations ? ", " LOG_LINK_DECLARATIONS : "",
										  quote_literal_cstr(slot)));
	(void) CreateSubscription(pstate, castNode(CreateSubscriptionStmt, statement), false);
	free_parsestate(pstate);
}

/*
 * 42710.  One of that name has been left behind where the extension was dropped: it is no part of it, and
 * its worker reads the slot that we would make.
 */
static void
require_no_subscription(int node_id)
{
	const char *name = subscription_name(node_id);

	if (!OidIsValid(get_subscription_oid(name, true)))
		return;
	if (is_there("SELECT FROM cqrs_es.followed_logs AS f WHERE f.node_id = $1", node_id))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists", name),
				 errhint("The log of node %d is followed already.", node_id)));
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("subscription \"%s\" already exists", name),
			 errdetail("It brings nothing: the log that it was made for is not here any more."),
			 errhint("DROP SUBSCRIPTION %s, then call follow_log() again.", name)));
}

/* A publisher that follows others hands on their events, which must not come here in two ways. */
static void
require_no_other_way(const Publisher *publisher)
{
	static InternalQuery query = {
		.sql = "SELECT n.node_id FROM pg_catalog.unnest($2::pg_catalog.int4[]) AS n (node_id) WHERE n.node_id OPERATOR(pg_catalog.<>) $1"
		" AND (n.node_id OPERATOR(pg_catalog.=) $3"
		" OR EXISTS (SELECT FROM cqrs_es.followed_logs AS f WHERE f.node_id OPERATOR(pg_catalog.=) n.node_id)"
		" OR EXISTS (SELECT FROM cqrs_es.events AS e WHERE e.global_position"
		" BETWEEN (n.node_id::pg_catalog.int8 OPERATOR(pg_catalog.<<) 44)"
		" AND ((n.node_id::pg_catalog.int8 OPERATOR(pg_catalog.<<) 44) OPERATOR(pg_catalog.|) 17592186044415)))",
		.nargs = 3,.argtypes = {INT4OID, TEXTOID, INT4OID}
	};
	Datum		values[3] = {Int32GetDatum(publisher->node_id), CStringGetTextDatum(publisher->nodes), Int32GetDatum(PositionNode())};
	int			node = -1;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("followed_logs");
	if (InternalQueryRead(&query, values, NULL, GetLatestSnapshot()) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		node = DatumGetInt32(InternalQueryDatum(&row, "node_id", NULL));
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	if (node >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the publisher hands on the log of node %d, which is here already, or is this node's", node),
				 errdetail("Its events would be received in two ways, and meet."),
				 errhint("Follow a publisher that follows others, or these.")));
}

/* What is received must not meet a row of its key; and no projection may be lost on it. */
static void
require_nothing_here(const Publisher *publisher, bool declarations)
{
	const char *found = NULL;
	const char *hint = "Follow in a database where nothing was appended.";

	if (is_there("SELECT FROM cqrs_es.events AS e WHERE e.global_position BETWEEN ($1::bigint << 44) AND (($1::bigint << 44) | 17592186044415) LIMIT 1", publisher->node_id))
		found = "events of that node";
	else if (is_there("SELECT FROM cqrs_es.event_tags AS e WHERE e.global_position BETWEEN ($1::bigint << 44) AND (($1::bigint << 44) | 17592186044415) LIMIT 1", publisher->node_id))
		found = "tags of events of that node";
	else if (is_there("SELECT FROM cqrs_es.log_histories AS h WHERE h.first_position BETWEEN ($1::bigint << 44) AND (($1::bigint << 44) | 17592186044415) LIMIT 1", publisher->node_id))
		found = "jumps of that node";
	else if (is_there("SELECT FROM pg_trigger AS t WHERE t.tgname IN ('receive_event', 'registry_row_received') AND NOT t.tgisinternal"
					  " AND t.tgenabled NOT IN ('R', 'A') AND $1 >= 0 AND t.tgrelid IN (SELECT c.oid FROM pg_class AS c WHERE c.relnamespace = 'cqrs_es'::regnamespace)"
					  " UNION ALL SELECT WHERE NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = 'cqrs_es.events'::regclass"
					  " AND t.tgfoid = 'cqrs_es.receive_event'::regproc)", publisher->node_id))
	{
		found = "triggers that do not fire for what is received";
		hint = "A restore with --disable-triggers leaves them so: ALTER TABLE ... ENABLE REPLICA TRIGGER receive_event, and registry_row_received.";
	}
	/* the triggers of whoever owns them would run as the subscription's owner */
	else if (!COMPAT_APPLIES_AS_TABLE_OWNER &&
			 is_there("SELECT FROM pg_class AS c JOIN pg_roles AS o ON o.oid = c.relowner"
					  " WHERE c.relnamespace = 'cqrs_es'::regnamespace AND c.relkind IN ('r', 'p') AND NOT o.rolsuper AND $1 >= 0 LIMIT 1", publisher->node_id))
	{
		found = "tables that no superuser owns";
		hint = "Before PostgreSQL 16 what is received is written as a superuser, so who owns the tables could be one: ALTER TABLE ... OWNER TO a superuser.";
	}
	/* those of another publisher may not have been copied yet */
	else if (declarations &&
			 (LogLinkGet()->receives_declarations ||
			  is_there("SELECT FROM cqrs_es.aggregates WHERE $1 >= 0 UNION ALL SELECT FROM cqrs_es.boundaries UNION ALL SELECT FROM cqrs_es.reducers"
					   " UNION ALL SELECT FROM cqrs_es.upcasters UNION ALL SELECT FROM cqrs_es.tag_definitions"
					   " UNION ALL SELECT FROM cqrs_es.personal_data UNION ALL SELECT FROM cqrs_es.personal_data_keys"
					   " UNION ALL SELECT FROM cqrs_es.forgotten_subjects LIMIT 1", publisher->node_id)))
	{
		found = "declarations";
		hint = "Drop aggregates, boundaries, reducers, upcasters, tags and personal data, which are received; or follow with declarations => false.";
	}
	else if (publisher->node_id == PositionNode() &&
			 is_there("SELECT FROM cqrs_es.projections AS p WHERE p.mode <> 'async' AND $1 >= 0 LIMIT 1", publisher->node_id))
	{
		found = "synchronous projections";
		hint = "Declare them with mode => 'async'.";
	}
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database cannot follow: it has %s", found),
				 errhint("%s", hint)));
}

/* Does the query, whose names are those of the catalog and of ours, give a row? */
static bool
is_there(const char *sql, int node_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(node_id);
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for what is there");
	found = SPI_processed > 0;
	RoleSwitchBack(&saved);
	SPI_finish();
	return found;
}

/* What an earlier publisher of the node has said, or this database. */
static void
clear_received(int node_id)
{
	static InternalQuery positions = {
		.sql = "DELETE FROM cqrs_es.published_positions WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	static InternalQuery logs = {
		.sql = "DELETE FROM cqrs_es.published_logs WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	Datum		value = Int32GetDatum(node_id);

	run_internal(&positions, &value);
	run_internal(&logs, &value);
}

static void
write_row(const Publisher *publisher, bool declarations)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.followed_logs AS f (node_id, subscription, publisher, follower, declarations)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (node_id) DO UPDATE SET publisher = EXCLUDED.publisher,"
		" follower = EXCLUDED.follower, declarations = EXCLUDED.declarations, followed_since = EXCLUDED.followed_since",
		.nargs = 5,.argtypes = {INT4OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID}
	};
	Datum		values[5] = {Int32GetDatum(publisher->node_id), CStringGetTextDatum(subscription_name(publisher->node_id)),
		CStringGetTextDatum(publisher->name), PublishedName(), BoolGetDatum(declarations)
	};

	run_internal(&query, values);
}

/*-------------------------------------------------------------------------
 * taking over
 *-------------------------------------------------------------------------
 */

/*
 * SQL: take_over_log(timeout, force, node_id).  Returns the position above which positions are
 * drawn.  Raises 25006, 42501, 55000 where nothing is followed, QE603 when the log was not
 * handed over, or is not all here, in that time.
 */
Datum
cqrs_es_take_over_log(PG_FUNCTION_ARGS)
{
	int			node_id;
	char	   *subscription;
	int64		last = 0;
	bool		has_all;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments of take_over_log() must not be null")));
	ReadOnlyPrevent(fcinfo);
	node_id = PG_ARGISNULL(2) ? PositionNode() : PG_GETARG_INT32(2);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("take_over_log() needs READ COMMITTED")));
	subscription = followed_subscription(node_id);
	has_all = await_handing_over(subscription, node_id, PG_GETARG_BOOL(1) ? 0 : ClockAfter(PG_GETARG_INTERVAL_P(0)), &last);
	if (!has_all && !PG_GETARG_BOOL(1))
		ereport(ERROR,
				(errcode(ERRCODE_LOG_NOT_HANDED_OVER),
				 errmsg("the log of node %d has not been handed over, or is not all here", node_id),
				 errhint("Call hand_over_log() at the publisher. When that is gone for good, take over with force => true; what has not come is lost.")));
	drop_subscription(subscription);
	if (node_id == PositionNode())
		LockRelationOid(PositionSequence(), ShareRowExclusiveLock);
	forget_row(node_id);
	CommandCounterIncrement();
	if (node_id != PositionNode())
		PG_RETURN_INT64(last);
	if (!has_all)
		PG_RETURN_INT64(LogHistoryJump());
	(void) PositionAdvance(POSITION_NUMBER(last));
	PG_RETURN_INT64(PositionOfNumber(PositionLastNumber()));
}

/* Of a node whose log is followed: 55000 else. */
static char *
followed_subscription(int node_id)
{
	static InternalQuery query = {
		.sql = "SELECT subscription FROM cqrs_es.followed_logs WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		value = Int32GetDatum(node_id);
	char	   *subscription = NULL;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("followed_logs");
	if (InternalQueryRead(&query, &value, NULL, GetLatestSnapshot()) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		subscription = MemoryContextStrdup(caller, InternalQueryText(&row, "subscription"));
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	if (subscription == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log of node %d is not followed", node_id)));
	return subscription;
}

/* Until the row of hand_over_log() is here; false when time runs out.  *last_position is its own. */
static bool
await_handing_over(const char *subscription, int node_id, TimestampTz deadline, int64 *last_position)
{
	Waiter		waiter = {.reason = WAKEUP_SETTLED};

	for (;;)
	{
		/* what is copied first may be of a moment before the events are */
		if (LogLinkIsCopied(subscription))
			*last_position = handed_over_position(node_id);
		if (*last_position > 0)
			break;
		if (!WakeupSleep(&waiter, deadline, LOOK_MS))
			return false;
	}
	WakeupLeave(&waiter);
	return true;
}

/* 0: it was not handed over; a log without events is handed over at the position before its first. */
static int64
handed_over_position(int node_id)
{
	static InternalQuery query = {
		.sql = "SELECT greatest(last_position, 1) AS last_position FROM cqrs_es.published_logs"
		" WHERE node_id OPERATOR(pg_catalog.=) $1 AND publisher OPERATOR(pg_catalog.<>) $2 AND last_position IS NOT NULL",
		.nargs = 2,.argtypes = {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(node_id), PublishedName()};
	int64		position = 0;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_logs");
	if (InternalQueryRead(&query, values, NULL, GetLatestSnapshot()) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		position = DatumGetInt64(InternalQueryDatum(&row, "last_position", NULL));
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return position;
}

/* If it is still there.  Its slot stays, at a publisher that may be gone. */
static void
drop_subscription(const char *subscription)
{
	static const char *const forms[] = {"ALTER SUBSCRIPTION %s DISABLE", "ALTER SUBSCRIPTION %s SET (slot_name = NONE)"};
	const char *name = quote_identifier(subscription);
	ParseState *pstate = make_parsestate(NULL);
	Node	   *statement;
	int			i;

	if (!OidIsValid(get_subscription_oid(subscription, true)))
		return;
	for (i = 0; i < (int) lengthof(forms); i++)
	{
		statement = PublicationParse(psprintf(forms[i], name));
		(void) AlterSubscription(pstate, castNode(AlterSubscriptionStmt, statement), false);
		CommandCounterIncrement();
	}
	statement = PublicationParse(psprintf("DROP SUBSCRIPTION %s", name));
	DropSubscription(castNode(DropSubscriptionStmt, statement), false);
	CommandCounterIncrement();
	free_parsestate(pstate);
}

static void
forget_row(int node_id)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.followed_logs WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	Datum		value = Int32GetDatum(node_id);

	run_internal(&query, &value);
}

/* A statement on tables of ours, with the rights of their owner. */
static void
run_internal(InternalQuery *query, Datum *values)
{
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("followed_logs");
	(void) InternalQueryWrite(query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}
