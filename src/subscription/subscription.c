/*-------------------------------------------------------------------------
 * subscription.c
 *	  Who takes events out of the log, which ones, and what follows when one
 *	  fails: a subscription as its row says, its lock, and who may do what.
 *
 * The lock of a subscription.  Whoever hands its events out, or gets them back,
 * shares it with others of that kind (RowExclusiveLock); whoever creates, alters,
 * drops or resets it has it alone (AccessExclusiveLock), and so never sees a batch
 * half handed out.  It is a lock of the server's lock table on the name, so it can
 * be had before there is a row, and it is waited for as any other: lock_timeout
 * holds, and deadlocks are found.  (Two names with one hash share a lock, which is
 * a needless wait at worst.)
 *
 * The order is always: the lock of the subscription, the row of a share, then, with
 * a snapshot that was taken after these locks, everything else.  A snapshot that is
 * older than a lock shows what was before whoever held it: a share's position of
 * now with the parked streams of then is how events go out of order.  So all of it
 * takes READ COMMITTED, and looks with the newest snapshot.
 *
 * A prepared transaction would keep these locks without a time limit, over a
 * restart even, and nobody could say who holds up the consumers.  So PREPARE
 * TRANSACTION is refused to a transaction that did something here.
 *
 * Rights.  EXECUTE on the functions that declare is given by name; beyond that a
 * subscription belongs to a role, whose members alter and drop it, pause, reset,
 * and decide about dead letters.  Its consumer role's members, and they, receive
 * and acknowledge.  Row security decides nothing here, since a cursor that several
 * move must not pass over rows that one of them does not see: a subscription is of
 * one tenant, or of all, whoever asks, and the caller must be one who would see just
 * that.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/fixed_settings.h"
#include "base/registry_name.h"
#include "base/role_switch.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/log_end.h"
#include "log/position.h"
#include "log/tenants.h"
#include "subscription/feed_name.h"
#include "subscription/subscription.h"

/* delays and leases are a year at most */
#define USECS_MAX (INT64CONST(366) * USECS_PER_DAY)

/* the transaction that did something here */
static LocalTransactionId begun_lxid = InvalidLocalTransactionId;

static void refuse_prepare(XactEvent event, void *arg);
static uint32 hash_of(const text *name);
static void tell_patience(void *arg);
static Subscription *from_row(const QueryRow *row);
static FilterTexts filter_texts(const QueryRow *row, const char *column);
static NullableDatum array_of(const QueryRow *row, const char *column);
static Oid	role_of(const QueryRow *row, const char *column, const char *name_column);
static Interval *interval_of(const QueryRow *row, const char *column);
static void refuse_tenant(void);
static bool is_ahead(int64 position);

void
SubscriptionInit(void)
{
	RegisterXactCallback(refuse_prepare, NULL);
}

/*
 * What every function here begins with that reads or changes shares, for messages
 * by its name: READ COMMITTED (25001), not on a standby nor in a read-only transaction
 * (25006), and no PREPARE TRANSACTION from here on (0A000 then).
 */
void
SubscriptionBegin(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s needs READ COMMITTED", function),
				 errdetail("A snapshot that is older than what others hand out and acknowledge would lose events.")));
	begun_lxid = compat_my_lxid();
}

static void
refuse_prepare(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && begun_lxid == compat_my_lxid())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has used a subscription, or changed an asynchronous projection"),
				 errdetail("It would keep events from all consumers until it is decided.")));
}

/*
 * Lock a subscription by its name, to the end of the transaction: RowExclusiveLock
 * to hand out, acknowledge, pause and decide; AccessExclusiveLock to declare and
 * reset, for which is not waited longer than SubscriptionPatience.  What is read before
 * it may be old.
 */
void
SubscriptionLock(const text *name, LOCKMODE mode)
{
	SubscriptionPatience patience;
	bool		alone = mode == AccessExclusiveLock;

	/* who waits for consumers lets others of them wait behind it */
	if (alone)
		SubscriptionPatienceBegin(&patience, FeedNameIs(name) ?
								  "whoever runs the projection, see locked_by in cqrs_es.subscription_status" :
								  "consumers of the subscription, see locked_by in cqrs_es.subscription_status");
	LockDatabaseObject(ExtensionRelid("subscriptions"), hash_of(name), 0, mode);
	if (alone)
		SubscriptionPatienceEnd(&patience);
}

/*
 * Lock it to hand out and acknowledge, without waiting; false when somebody has it alone, or
 * waits to.
 */
bool
SubscriptionTryLock(const text *name)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelid("subscriptions"), hash_of(name), 0);
	if (compat_try_lock(&tag, RowExclusiveLock, false) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	/* what was changed under the lock */
	AcceptInvalidationMessages();
	return true;
}

static uint32
hash_of(const text *name)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(name), (int) VARSIZE_ANY_EXHDR(name));
}

/*
 * What waits for locks from here on does so for 10 s, unless lock_timeout says
 * something else; then it is 55P03, with what it waited for.
 */
void
SubscriptionPatienceBegin(SubscriptionPatience *patience, const char *what)
{
	patience->guc_level = 0;
	if (LockTimeout == 0)
	{
		patience->guc_level = NewGUCNestLevel();
		(void) set_config_option("lock_timeout", "10s", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	patience->callback.callback = tell_patience;
	patience->callback.arg = (void *) what;
	patience->callback.previous = error_context_stack;
	error_context_stack = &patience->callback;
}

void
SubscriptionPatienceEnd(SubscriptionPatience *patience)
{
	error_context_stack = patience->callback.previous;
	if (patience->guc_level > 0)
		AtEOXact_GUC(true, patience->guc_level);
}

static void
tell_patience(void *arg)
{
	errcontext("waiting for %s", (const char *) arg);
}

/*
 * Read one with the newest snapshot, palloc'd in the current memory context; QE402
 * when there is none of that name.
 */
Subscription *
SubscriptionRead(const text *name)
{
	Subscription *subscription = SubscriptionFind(name);

	if (subscription == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SUBSCRIPTION),
				 errmsg("subscription \"%s\" does not exist", text_to_cstring(name)),
				 FeedNameIs(name) ? errhint("No asynchronous projection has that name.") :
				 errhint(SUBSCRIPTION_MISSING_HINT)));
	return subscription;
}

/* The same, or NULL. */
Subscription *
SubscriptionFind(const text *name)
{
	static InternalQuery query = {
		.sql = "SELECT name, tenant_id, aggregate_types, event_types, tags, ordering, on_failure,"
		" max_attempts, retry_delay, retry_delay_max, lease, paused,"
		" owner, owner_name, consumer_role, consumer_role_name"
		" FROM cqrs_es.subscriptions WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		value = PointerGetDatum(name);
	Subscription *subscription = NULL;
	RoleSwitch	saved;
	uint64		n;

	SPI_connect();
	/* nothing here depends on settings, and each call of a consumer comes by */
	saved = RoleSwitchToOwner("subscriptions");
	n = InternalQueryRead(&query, &value, NULL, GetLatestSnapshot());
	RoleSwitchBack(&saved);
	if (n > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		subscription = from_row(&row);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return subscription;
}

/* In the current memory context. */
static Subscription *
from_row(const QueryRow *row)
{
	Subscription *subscription = palloc0(sizeof(Subscription));
	char	   *tenant_id = InternalQueryText(row, "tenant_id");
	char	   *on_failure = InternalQueryText(row, "on_failure");

	subscription->name = DatumGetTextPCopy(InternalQueryDatum(row, "name", NULL));
	subscription->filter.tenant_ids.all = tenant_id == NULL;
	if (tenant_id)
	{
		subscription->tenant_id = cstring_to_text(tenant_id);
		subscription->filter.tenant_ids.n = 1;
		subscription->filter.tenant_ids.texts = &subscription->tenant_id;
	}
	subscription->filter.aggregate_types = filter_texts(row, "aggregate_types");
	subscription->filter.event_types = filter_texts(row, "event_types");
	EventFilterSetTags(&subscription->filter, array_of(row, "tags"));
	subscription->in_log_order = strcmp(InternalQueryText(row, "ordering"), "log") == 0;
	subscription->on_failure = strcmp(on_failure, "block") == 0 ? ON_FAILURE_BLOCK :
		strcmp(on_failure, "skip") == 0 ? ON_FAILURE_SKIP : ON_FAILURE_STOP;
	subscription->max_attempts = DatumGetInt32(InternalQueryDatum(row, "max_attempts", NULL));
	subscription->retry_delay = interval_of(row, "retry_delay");
	subscription->retry_delay_max = interval_of(row, "retry_delay_max");
	subscription->lease = interval_of(row, "lease");
	subscription->owner = role_of(row, "owner", "owner_name");
	subscription->consumer_role = role_of(row, "consumer_role", "consumer_role_name");
	subscription->paused = DatumGetBool(InternalQueryDatum(row, "paused", NULL));
	return subscription;
}

static FilterTexts
filter_texts(const QueryRow *row, const char *column)
{
	return EventFilterTexts(array_of(row, column), column);
}

/* A copy of it. */
static NullableDatum
array_of(const QueryRow *row, const char *column)
{
	NullableDatum array;

	array.value = InternalQueryDatum(row, column, &array.isnull);
	if (!array.isnull)
		array.value = PointerGetDatum(DatumGetArrayTypePCopy(array.value));
	return array;
}

/* As REGISTRY_ROLE, without a query over all roles for each call of a consumer. */
static Oid
role_of(const QueryRow *row, const char *column, const char *name_column)
{
	bool		isnull;
	Datum		role = InternalQueryDatum(row, column, &isnull);
	char	   *name;

	if (!isnull)
		return DatumGetObjectId(role);
	name = InternalQueryText(row, name_column);
	return name ? get_role_oid(name, true) : InvalidOid;
}

static Interval *
interval_of(const QueryRow *row, const char *column)
{
	Interval   *interval = palloc(sizeof(Interval));

	*interval = *DatumGetIntervalP(InternalQueryDatum(row, column, NULL));
	return interval;
}

/* Is it one of this node that passes the filter? */
bool
SubscriptionWants(const Subscription *subscription, const Event *event)
{
	return POSITION_NODE(EventGlobalPosition(event)) == PositionNode() &&
		EventFilterMatches(&subscription->filter, event);
}

/*-------------------------------------------------------------------------
 * who may
 *-------------------------------------------------------------------------
 */

/*
 * The caller may receive and acknowledge: as a member of the owner or of the consumer
 * role, who may read the log and would see just the events of the subscription there.
 * 42501; QE007 where a tenant is required.  Nothing is said of a tenant but the
 * caller's.
 */
void
SubscriptionRequireConsumer(const Subscription *subscription)
{
	if (!SubscriptionMayConsume(subscription))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for subscription \"%s\"", text_to_cstring(subscription->name)),
				 errdetail("Only its owner and members of its consumer role receive its events.")));
	SubscriptionRequireTenant(subscription->tenant_id);
}

/* Is the caller a member of the owner, or of the consumer role? */
bool
SubscriptionMayConsume(const Subscription *subscription)
{
	Oid			caller = GetUserId();

	return has_privs_of_role(caller, subscription->owner) ||
		(OidIsValid(subscription->consumer_role) &&
		 has_privs_of_role(caller, subscription->consumer_role));
}

/*
 * The caller must be one who sees, in the log, the events of this tenant and just
 * these; NULL is all tenants.  42501; QE007 where a tenant is required.
 */
void
SubscriptionRequireTenant(const text *tenant_id)
{
	EventsRequireRights(ACL_SELECT);
	if (tenant_id == NULL)
	{
		TenantsRequireAll();
		return;
	}
	if (!TextEqual(TenancyCurrent(), tenant_id))
		refuse_tenant();
	if (EventsRowSecurity())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a role to which policies of the log apply cannot use subscriptions"),
				 errdetail("What they hide would be passed over for all consumers."),
				 errhint("Filter with event_types and aggregate_types, or use a role with BYPASSRLS.")));
}

/*
 * The caller may alter, drop, pause, reset, and decide about dead letters: as a
 * member of the owner, who has its tenant set unless row security does not
 * concern the caller.  42501; QE007 where a tenant is required.
 */
void
SubscriptionRequireOwner(const Subscription *subscription)
{
	if (!has_privs_of_role(GetUserId(), subscription->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\"", text_to_cstring(subscription->name))));
	if (!SubscriptionTenantIsOwn(subscription->tenant_id))
		refuse_tenant();
}

/* The same as an answer. */
bool
SubscriptionIsOwn(const Subscription *subscription)
{
	return has_privs_of_role(GetUserId(), subscription->owner) &&
		SubscriptionTenantIsOwn(subscription->tenant_id);
}

/*
 * Is it the current tenant, or all, or a caller whom row security does not concern?
 * QE007 where a tenant is required.
 */
bool
SubscriptionTenantIsOwn(const text *tenant_id)
{
	return tenant_id == NULL || has_bypassrls_privilege(GetUserId()) ||
		compat_class_ownercheck(ExtensionRelid("events"), GetUserId()) ||
		TextEqual(TenancyCurrent(), tenant_id);
}

static void
refuse_tenant(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the subscription is not one of the current tenant"),
			 errhint("Set cqrs_es.tenant_id to the tenant it was created for.")));
}

/*-------------------------------------------------------------------------
 * what else several need
 *-------------------------------------------------------------------------
 */

/*
 * A position up to which events are to be done must be one of this node, 0 or more
 * (22023, under the name of the argument), and the log must have come to it: QE404.
 * Drawn is enough, and so is there, for rows may have been restored.
 */
void
SubscriptionRequirePosition(const char *argument, int64 position)
{
	if (position < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", argument)));
	if (position != 0 && POSITION_NODE(position) != PositionNode() &&
		POSITION_NODE(position) <= POSITION_MAX_NODE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position %lld is not one of this node", (long long) position),
				 errhint("Give a position of this node, or 0 for the beginning.")));
	if (is_ahead(position))
		ereport(ERROR,
				(errcode(ERRCODE_POSITION_AHEAD),
				 errmsg("position %lld lies ahead of the log", (long long) position),
				 errdetail("The log has come to %lld.", (long long) SubscriptionLogEnd()),
				 errhint("Give a position that the log has come to, or 0 for the beginning.")));
}

/* The same of the position of a share; the cure is another one: QE404. */
void
SubscriptionRequireReadable(int64 position)
{
	const char *obstacle = SubscriptionObstacle(position);

	if (obstacle)
		ereport(ERROR,
				(errcode(ERRCODE_POSITION_AHEAD),
				 errmsg("%s", obstacle),
				 errdetail("The log has come to %lld.", (long long) SubscriptionLogEnd()),
				 errhint("The log has lost its end, or it is another one: find out what consumers have had, then reset_subscription().")));
}

/* Why nothing can be handed out behind the position of a share, palloc'd; NULL: it can. */
char *
SubscriptionObstacle(int64 position)
{
	if (position > 0 && POSITION_NODE(position) != PositionNode())
		return psprintf("position %lld is not one of this node", (long long) position);
	if (is_ahead(position))
		return psprintf("position %lld lies ahead of the log", (long long) position);
	return NULL;
}

static bool
is_ahead(int64 position)
{
	return position > PositionOfNumber(PositionLastNumber()) && position > SubscriptionLogEnd();
}

/*
 * A position of this node above which nothing is in the log and nothing was drawn.  A
 * row that was rolled back does not count: what is drawn next may be below it.
 */
int64
SubscriptionLogEnd(void)
{
	int64		drawn = PositionOfNumber(PositionLastNumber());
	int64		last = LogEnd(PositionOfNumber(POSITION_MAX_NUMBER) + 1, true, NULL);

	return Max(drawn, last);
}

/* A delay or a lease must be at least so many microseconds, and at most a year: 22023. */
void
SubscriptionCheckInterval(const char *what, const Interval *interval, int64 least)
{
	int64		usecs = SubscriptionUsecs(interval);

	if (usecs < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(least > 0 ? "%s must be positive" : "%s must not be negative", what)));
	if (usecs > USECS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("At most a year is possible.")));
}

/* In microseconds, a month having 30 days, as intervals are compared. */
int64
SubscriptionUsecs(const Interval *interval)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		usecs;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs))
		return days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return usecs;
}

/*
 * Lock a subscription that is the caller's own and read it: QE402, 42501.  Asked
 * before, too, so that nobody else waits in front of its consumers.
 */
Subscription *
SubscriptionLockOwn(const text *name, LOCKMODE mode)
{
	Subscription *subscription;

	SubscriptionRequireOwner(SubscriptionRead(name));
	SubscriptionLock(name, mode);
	subscription = SubscriptionRead(name);
	SubscriptionRequireOwner(subscription);
	return subscription;
}

/* A free share with all slots.  Between SPI_connect and SPI_finish. */
void
SubscriptionInsertShare(const text *name, int64 position)
{
	static InternalQuery insert = {
		.sql = "INSERT INTO cqrs_es.shares (subscription, slots, position)"
		" VALUES ($1, pg_catalog.repeat('1', 256)::pg_catalog.bit(256), $2) ON CONFLICT DO NOTHING",
		.nargs = 2,.argtypes = {TEXTOID, INT8OID}
	};
	Datum		values[2] = {PointerGetDatum(name), Int64GetDatum(position)};

	/* a copy of the tables need not have their sequences */
	while (SubscriptionWrite(&insert, values, NULL) == 0)
		CHECK_FOR_INTERRUPTS();
}

/* What failed in batches in hand counts no more.  Between SPI_connect and SPI_finish. */
void
SubscriptionForgetNotes(const text *name)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.nacked_events WHERE share OPERATOR(pg_catalog.=) ANY ("
		"SELECT s.share FROM cqrs_es.shares AS s WHERE s.subscription OPERATOR(pg_catalog.=) $1)",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	(void) SubscriptionWrite(&query, &value, NULL);
}

/* Who decides about dead letters: the name of the current role, palloc'd. */
text *
SubscriptionDecider(void)
{
	return cstring_to_text(GetUserNameFromId(GetUserId(), false));
}

/* It stops by itself, until somebody resumes it. */
void
SubscriptionStop(const Subscription *subscription, const char *error)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.subscriptions SET paused = true, stopped_error = coalesce($2, '')"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name),
		error ? CStringGetTextDatum(error) : (Datum) 0};
	char		nulls[2] = {' ', error ? ' ' : 'n'};

	SPI_connect();
	(void) SubscriptionWrite(&query, values, nulls);
	SPI_finish();
}

/*
 * Read a table of subscriptions with the newest snapshot, as its owner, for users need
 * no grants.  Between SPI_connect and SPI_finish; the number of rows.
 */
uint64
SubscriptionQuery(InternalQuery *query, Datum *values, const char *nulls)
{
	RoleSwitch	saved = RoleSwitchToOwner("subscriptions");
	uint64		n;

	FixedSettingsSet(&saved.guc_level);
	n = InternalQueryRead(query, values, nulls, GetLatestSnapshot());
	RoleSwitchBack(&saved);
	return n;
}

/* The same for what writes or locks rows. */
uint64
SubscriptionWrite(InternalQuery *query, Datum *values, const char *nulls)
{
	RoleSwitch	saved = RoleSwitchToOwner("subscriptions");
	uint64		n;

	FixedSettingsSet(&saved.guc_level);
	n = InternalQueryWriteNewest(query, values, nulls);
	RoleSwitchBack(&saved);
	return n;
}
