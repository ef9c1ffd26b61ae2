/*-------------------------------------------------------------------------
 * log_link.c
 *	  Whose log is it, where it is in several databases?
 *
 * A log may be published (publication.c), and followed by another database, the read
 * node (follow.c), by means of the server's logical replication.  Both are written down in a
 * table: published_logs, which is published itself, and followed_logs, which is not.
 *
 * What a read node must not do.  What comes from the publisher is written by an apply
 * worker, and whatever collides with it ends that, which is then started over and over.  So no
 * position is drawn there (PositionSetGuard), and what is received is not changed: QE601.
 * A synchronous projection would never run, since what is received fires no triggers but
 * those that are meant for it; so that is refused, too.  The guard stands behind the lock of
 * the sequence, which who begins or ends following takes against it: so whoever gets that
 * lock knows, and nobody else is under way.
 *
 * What runs in the apply worker: receive_event() for each event, and it does nothing that what is in
 * the event could make fail.  It moves the sequence, so that "drawn" means "received" to
 * all who ask for it (where projections begin, whether there is something to do), and positions go on
 * above; it lets go of snapshots of a stream that was redacted; it wakes who waits, and starts the worker of asynchronous projections.  Caches of
 * registries are told by a trigger for rows, since an apply worker fires none for statements.
 *
 * While a subscription begins, it copies one table after the other, each in a transaction of
 * its own.  An event is there then whose upcaster or whose tags are not.  So walks over the
 * log hand out nothing before all are copied (LogLinkIsCopying).  After that the one
 * apply worker commits what the publisher did, in the same transactions and in their order.
 *
 * A row of followed_logs says who follows: a database that was restored from a dump is
 * another one, which may append; unless it has the subscription, too (pg_upgrade).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/relation_change.h"
#include "base/role_switch.h"
#include "base/wakeup.h"
#include "log/event_columns.h"
#include "log/events.h"
#include "log/position.h"
#include "log/published.h"
#include "log/redaction.h"
#include "log/reserved_type.h"
#include "async/worker.h"
#include "scale/log_link.h"

/* what is known, of this node */
static LogLink known;
static char known_subscription[NAMEDATALEN];
static int	known_node = 0;
static bool is_known = false;
static bool is_copied = false;
static uint64 invalidations = 0;
static Oid	followed_relid = InvalidOid;
static Oid	published_relid = InvalidOid;

PG_FUNCTION_INFO_V1(cqrs_es_receive_event);
PG_FUNCTION_INFO_V1(cqrs_es_refuse_while_following);

static void load(void);
static void load_followed(LogLink *link, char *subscription);
static void load_published(LogLink *link);
static bool is_blank(const char *table);
static void invalidate(Oid relid);
static bool follows(void);
static void refuse_append(void);
static void wake_worker(void);
static bool is_synchronous(const TriggerData *trigger);

void
LogLinkInit(void)
{
	static const PublishedLink link = {.follows = follows,.is_copying = LogLinkIsCopying};

	RelationChangeObserve(invalidate);
	PositionSetGuard(refuse_append);
	PublishedSetLink(&link);
	EventsIgnoreTrigger("receive_event");
}

/*-------------------------------------------------------------------------
 * what is known
 *-------------------------------------------------------------------------
 */

/* Of this node's log, by what is committed and what this transaction did; good until it is asked again. */
const LogLink *
LogLinkGet(void)
{
	if (!is_known || known_node != PositionNode())
		load();
	return &known;
}

static bool
follows(void)
{
	return LogLinkGet()->follows;
}

/* Are the tables still being copied of which this node's log is made here? */
bool
LogLinkIsCopying(void)
{
	if (!LogLinkGet()->follows || is_copied)
		return false;
	is_copied = LogLinkIsCopied(known_subscription);
	return !is_copied;
}

/* Has a subscription copied all its tables?  One that somebody has dropped brings nothing any more. */
bool
LogLinkIsCopied(const char *name)
{
	static InternalQuery query = {
		.sql = "SELECT FROM pg_catalog.pg_subscription_rel AS r"
		" WHERE r.srsubid OPERATOR(pg_catalog.=) $1 AND r.srsubstate OPERATOR(pg_catalog.<>) 'r'",
		.nargs = 1,.argtypes = {OIDOID}
	};
	Datum		value = ObjectIdGetDatum(get_subscription_oid(name, true));
	bool		found;

	SPI_connect();
	found = InternalQueryRead(&query, &value, NULL, GetLatestSnapshot()) > 0;
	SPI_finish();
	return !found;
}

static void
load(void)
{
	uint64		started = invalidations;
	LogLink		link = {0};
	char		subscription[NAMEDATALEN] = {0};

	followed_relid = ExtensionRelidIfUpdated("followed_logs");
	published_relid = ExtensionRelidIfUpdated("published_logs");
	if (!is_blank("followed_logs"))
		load_followed(&link, subscription);
	if (!is_blank("published_logs"))
		load_published(&link);
	known = link;
	strlcpy(known_subscription, subscription, NAMEDATALEN);
	known_node = PositionNode();
	is_copied = false;
	is_known = started == invalidations;
}

static void
load_followed(LogLink *link, char *subscription)
{
	static InternalQuery query = {
		.sql = "SELECT node_id OPERATOR(pg_catalog.=) $1 AS is_node, subscription, declarations,"
		" follower OPERATOR(pg_catalog.=) $2 AS is_here FROM cqrs_es.followed_logs",
		.nargs = 2,.argtypes = {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(PositionNode()), PublishedName()};
	RoleSwitch	saved;
	uint64		n;
	uint64		i;

	SPI_connect();
	saved = RoleSwitchToOwner("followed_logs");
	n = InternalQueryRead(&query, values, NULL, GetLatestSnapshot());
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		char	   *name = InternalQueryText(&row, "subscription");

		if (!DatumGetBool(InternalQueryDatum(&row, "is_here", NULL)) &&
			!OidIsValid(get_subscription_oid(name, true)))
			continue;
		link->receives_declarations |= DatumGetBool(InternalQueryDatum(&row, "declarations", NULL));
		if (!DatumGetBool(InternalQueryDatum(&row, "is_node", NULL)))
			continue;
		link->follows = true;
		strlcpy(subscription, name, NAMEDATALEN);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
}

static void
load_published(LogLink *link)
{
	static InternalQuery query = {
		.sql = "SELECT coalesce(last_position, -1) AS last_position FROM cqrs_es.published_logs"
		" WHERE node_id OPERATOR(pg_catalog.=) $1 AND publisher OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(PositionNode()), PublishedName()};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_logs");
	if (InternalQueryRead(&query, values, NULL, GetLatestSnapshot()) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		link->publishes = true;
		link->last_position = DatumGetInt64(InternalQueryDatum(&row, "last_position", NULL));
		link->handed_over = link->last_position >= 0;
	}
	RoleSwitchBack(&saved);
	SPI_finish();
}

/* Was never anything in it?  So it is in most databases, and no query need be planned there. */
static bool
is_blank(const char *table)
{
	Oid			relid = ExtensionRelidIfUpdated(table);
	Relation	rel;
	bool		is_blank;

	if (!OidIsValid(relid))
		return true;
	rel = table_open(relid, AccessShareLock);
	is_blank = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, AccessShareLock);
	return is_blank;
}

static void
invalidate(Oid relid)
{
	if (relid == InvalidOid || !OidIsValid(followed_relid) || !OidIsValid(published_relid) ||
		relid == followed_relid || relid == published_relid)
	{
		is_known = false;
		invalidations++;
	}
}

/*-------------------------------------------------------------------------
 * what is refused
 *-------------------------------------------------------------------------
 */

/* Who draws a position holds the lock of the sequence by now.  Tells the worker as well. */
static void
refuse_append(void)
{
	const LogLink *link = LogLinkGet();

	if (link->follows)
		ereport(ERROR,
				(errcode(ERRCODE_LOG_FOLLOWS),
				 errmsg("this database follows the log of another one"),
				 errdetail("Its events are received, and nothing is appended here."),
				 errhint("Append at the publisher, or let this database take over: hand_over_log() there, then take_over_log() here.")));
	if (link->handed_over)
		ereport(ERROR,
				(errcode(ERRCODE_LOG_HANDED_OVER),
				 errmsg("this log has been handed over at position %lld", (long long) link->last_position),
				 errhint("Append where it was taken over. If nobody has taken it over: take_back_log().")));
	/* readers elsewhere are to be told how far it is settled */
	if (link->publishes)
		WorkerWanted();
}

/* SQL: the trigger of what is received, and of projections; its argument says which. */
Datum
cqrs_es_refuse_while_following(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *what;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as a trigger of its own table", "refuse_while_following()")));
	what = trigger->tg_trigger->tgargs[0];
	if (strcmp(what, "projections") != 0)
	{
		if (strcmp(what, "log") == 0 ? LogLinkGet()->follows : LogLinkGet()->receives_declarations)
			ereport(ERROR,
					(errcode(ERRCODE_LOG_FOLLOWS),
					 errmsg("%s.%s is received from a publisher", CQRS_ES_SCHEMA,
							RelationGetRelationName(trigger->tg_relation)),
					 errhint("Change it there.")));
		return PointerGetDatum(NULL);
	}
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		elog(ERROR, "a trigger for rows is fired for a statement");
	if (LogLinkGet()->follows && is_synchronous(trigger))
		ereport(ERROR,
				(errcode(ERRCODE_LOG_FOLLOWS),
				 errmsg("a projection of a log that is followed must be asynchronous"),
				 errdetail("Events are received here, and not appended."),
				 errhint("Declare it with mode => 'async'.")));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && LogLinkIsCopying())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log is still being copied from its publisher"),
				 errdetail("Events may be there already whose tags and upcasters are not."),
				 errhint("Wait until followed_log_status says that it is copied.")));
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
						   trigger->tg_newtuple : trigger->tg_trigtuple);
}

static bool
is_synchronous(const TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	char	   *mode = SPI_getvalue(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
									trigger->tg_newtuple : trigger->tg_trigtuple,
									desc, SPI_fnumber(desc, "mode"));

	return mode != NULL && strcmp(mode, "async") != 0;
}

/*-------------------------------------------------------------------------
 * what is received
 *-------------------------------------------------------------------------
 */

/*
 * SQL: the row trigger of what is received.  In an apply worker, or one that copies, so it must not
 * fail for what is in a row.
 */
Datum
cqrs_es_receive_event(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Event		event = {.row = NULL};
	Relation	rel;
	bool		is_event;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired AFTER, FOR EACH ROW", "receive_event()")));
	rel = trigger->tg_relation;
	/* a partition of the log has its columns, too */
	is_event = get_attnum(RelationGetRelid(rel), "aggregate_id") != InvalidAttrNumber;
	is_event = is_event && EventFromTuple(rel, trigger->tg_trigtuple, &event);
	/* also by a subscription that somebody has made by hand */
	if (is_event && ReservedTypeErases(&event))
		RedactionReceived(&event);
	if (!LogLinkGet()->follows)
		return PointerGetDatum(NULL);
	WakeupAtEnd();
	wake_worker();
	if (is_event && EventGlobalPosition(&event) > 0 &&
		POSITION_NODE(EventGlobalPosition(&event)) == PositionNode())
	{
		PositionHoldReaders();
		(void) PositionAdvance(POSITION_NUMBER(EventGlobalPosition(&event)));
	}
	return PointerGetDatum(NULL);
}

/* Once in a transaction, where something may have to be run. */
static void
wake_worker(void)
{
	static LocalTransactionId woken_in = InvalidLocalTransactionId;

	if (woken_in == compat_my_lxid())
		return;
	woken_in = compat_my_lxid();
	if (!is_blank("projections"))
		WorkerWanted();
}
