/*-------------------------------------------------------------------------
 * declaration.c
 *	  Subscriptions are created, altered and dropped.
 *
 * Whoever does that has the lock of the subscription alone: no batch is being handed
 * out or acknowledged beside it, and what was handed out before is known.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid_d.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "base/wakeup.h"
#include "log/events.h"
#include "log/horizon.h"
#include "subscription/declaration.h"
#include "subscription/feed_name.h"
#include "subscription/subscription.h"

/* SQL: are these the same types?  Null: all. */
#define SAME_TYPES(column, parameter) \
	"coalesce(" column " OPERATOR(pg_catalog.@>) " parameter \
	" AND " column " OPERATOR(pg_catalog.<@) " parameter ", " column " IS NULL AND " parameter " IS NULL)"

/* SQL: what a column has, for a message, when it differs */
#define WHAT_IT_HAS(column) \
	"pg_catalog.concat('" column " is ', coalesce(" column "::pg_catalog.text, 'NULL'))"
#define DIFFERENT(column, parameter) \
	" CASE WHEN " column " IS DISTINCT FROM " parameter " THEN " WHAT_IT_HAS(column) " END"
#define OTHER_TYPES(column, parameter) \
	" CASE WHEN NOT " SAME_TYPES(column, parameter) " THEN " WHAT_IT_HAS(column) " END"

/* SQL: are these the same filters, as $2, $3 and $13? */
#define SAME_FILTERS \
	SAME_TYPES("aggregate_types", "$2") " AND " SAME_TYPES("event_types", "$3") \
	" AND " SAME_TYPES("tags", "$13")

/* Types of all parameters, with which a query takes some. */
#define OPTION_ARGTYPES \
	{TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, INT4OID, INTERVALOID, INTERVALOID, \
	INTERVALOID, REGROLEOID, REGROLEOID, TEXTOID, TEXTARRAYOID}

/* The parameters of a subscription, as the columns of its row. */
typedef enum Option
{
	OPTION_AGGREGATE_TYPES,
	OPTION_EVENT_TYPES,
	OPTION_ORDERING,
	OPTION_ON_FAILURE,
	OPTION_MAX_ATTEMPTS,
	OPTION_RETRY_DELAY,
	OPTION_RETRY_DELAY_MAX,
	OPTION_LEASE,
	OPTION_CONSUMER_ROLE,
	OPTION_OWNER,
	OPTION_TENANT_ID,
	OPTION_TAGS
} Option;

#define OPTIONS (OPTION_TAGS + 1)

/* Parameters of a query: the name, and then the options. */
typedef struct Declaration
{
	Datum		values[OPTIONS + 1];
	char		nulls[OPTIONS + 1];
} Declaration;

PG_FUNCTION_INFO_V1(cqrs_es_create_subscription);
PG_FUNCTION_INFO_V1(cqrs_es_alter_subscription);
PG_FUNCTION_INFO_V1(cqrs_es_drop_subscription);

static void begin_declaration(Declaration *declaration, const text *name);
static void set_option(Declaration *declaration, Option option, NullableDatum value);
static void set_value(Declaration *declaration, Option option, Datum value);
static void set_filters(Declaration *declaration, NullableDatum aggregate_types,
						NullableDatum event_types, NullableDatum tags, bool may_be_empty);
static void set_types(Declaration *declaration, Option option, NullableDatum value,
					  const char *what, const char *element, int max_bytes, bool may_be_empty);
static void set_choice(Declaration *declaration, Option option, NullableDatum value,
					   const char *what, const char *const *choices);
static void set_attempts(Declaration *declaration, NullableDatum value);
static void set_interval(Declaration *declaration, Option option, NullableDatum value,
						 const char *what, int64 least);
static void set_role(Declaration *declaration, Option option, NullableDatum value,
					 const char *what);
static void set_defaults(Declaration *declaration);
static void set_default(Declaration *declaration, Option option, Datum value);
static bool option_is(const Declaration *declaration, Option option, const char *word);
static void check_options(const Declaration *declaration);
static void read_present(Declaration *declaration);
static bool filters_differ(const Declaration *declaration);
static void filter_anew(const Declaration *declaration);
static void check_owner(const Declaration *declaration, Oid present);
static bool lock_to_drop(const text *name, bool if_exists);
static bool is_there(const Declaration *declaration);
static int64 first_position(FunctionCallInfo fcinfo);

static const char *const orderings[] = {"stream", "log", NULL};
static const char *const failures[] = {"block", "skip", "stop", NULL};

/*
 * SQL: create_subscription(name, aggregate_types, event_types, start_after,
 * start_at_end, ordering, on_failure, max_attempts, retry_delay, retry_delay_max,
 * lease, consumer_role, all_tenants, tags).  Who creates the same again, running a
 * migration twice, changes nothing; where it began does not matter then.
 */
Datum
cqrs_es_create_subscription(PG_FUNCTION_ARGS)
{
	static InternalQuery insert = {
		.sql = "INSERT INTO cqrs_es.subscriptions (name, aggregate_types, event_types, ordering,"
		" on_failure, max_attempts, retry_delay, retry_delay_max, lease, consumer_role,"
		" owner, tenant_id, tags) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
		.nargs = OPTIONS + 1,.argtypes = OPTION_ARGTYPES
	};
	text	   *name = TextArgument(fcinfo->args[0], "subscription name", SUBSCRIPTION_NAME_MAX_BYTES);
	bool		all_tenants = !PG_ARGISNULL(12) && PG_GETARG_BOOL(12);
	text	   *tenant_id = all_tenants ? NULL : TenancyCurrent();
	Declaration declaration;

	EventsRefuseDistributed("subscriptions");
	if (FeedNameIs(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a subscription cannot be called \"%s\"", text_to_cstring(name)),
				 errdetail("Such names are those of asynchronous projections.")));
	SubscriptionBegin("create_subscription()");
	SubscriptionRequireTenant(tenant_id);
	begin_declaration(&declaration, name);
	set_filters(&declaration, fcinfo->args[1], fcinfo->args[2], fcinfo->args[13], false);
	set_choice(&declaration, OPTION_ORDERING, fcinfo->args[5], "ordering", orderings);
	set_choice(&declaration, OPTION_ON_FAILURE, fcinfo->args[6], "on_failure", failures);
	set_attempts(&declaration, fcinfo->args[7]);
	set_interval(&declaration, OPTION_RETRY_DELAY, fcinfo->args[8], "retry_delay", 0);
	set_interval(&declaration, OPTION_RETRY_DELAY_MAX, fcinfo->args[9], "retry_delay_max", 0);
	set_interval(&declaration, OPTION_LEASE, fcinfo->args[10], "lease", 1);
	if (tenant_id)
		set_value(&declaration, OPTION_TENANT_ID, PointerGetDatum(tenant_id));
	set_value(&declaration, OPTION_OWNER, ObjectIdGetDatum(GetUserId()));
	set_defaults(&declaration);
	check_options(&declaration);

	set_role(&declaration, OPTION_CONSUMER_ROLE, fcinfo->args[11], "is to receive events");
	DefinerRequireRole(GetUserId());
	SPI_connect();
	/* applications do that at each start, and should not hold up those that run */
	if (!is_there(&declaration))
	{
		SubscriptionLock(name, AccessExclusiveLock);
		if (!is_there(&declaration))
		{
			int64		position = first_position(fcinfo);

			(void) SubscriptionWrite(&insert, declaration.values, declaration.nulls);
			SubscriptionInsertShare(name, position);
		}
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * SQL: alter_subscription(name, aggregate_types, event_types, on_failure, max_attempts,
 * retry_delay, retry_delay_max, lease, consumer_role, owner, tags).  Null leaves each as it
 * is; an empty array lifts a filter, the role '-' that of the consumers.
 */
Datum
cqrs_es_alter_subscription(PG_FUNCTION_ARGS)
{
	static InternalQuery no_consumers = {
		.sql = "UPDATE cqrs_es.subscriptions SET consumer_role = NULL, consumer_role_name = NULL"
		" WHERE name OPERATOR(pg_catalog.=) $1 AND consumer_role_name IS NOT NULL",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery update = {
		.sql = "UPDATE cqrs_es.subscriptions SET aggregate_types = $2, event_types = $3,"
		" on_failure = $5, max_attempts = $6, retry_delay = $7, retry_delay_max = $8, lease = $9,"
		" consumer_role = coalesce($10, consumer_role), owner = $11, tags = $13"
		" WHERE name OPERATOR(pg_catalog.=) $1"
		" AND (aggregate_types, event_types, on_failure, max_attempts, retry_delay, retry_delay_max,"
		" lease, coalesce(consumer_role, 0), owner, tags)"
		" IS DISTINCT FROM ($2, $3, $5, $6, $7, $8, $9, coalesce($10, consumer_role, 0), $11, $13)",
		.nargs = OPTIONS + 1,.argtypes = OPTION_ARGTYPES
	};
	text	   *name = TextArgument(fcinfo->args[0], "subscription name", SUBSCRIPTION_NAME_MAX_BYTES);
	Declaration declaration;
	Subscription *present;

	if (!PG_ARGISNULL(9) && !OidIsValid(PG_GETARG_OID(9)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("owner must be a role")));
	FeedNameRefuse(name, "alter_subscription()", "alter_projection()");
	SubscriptionBegin("alter_subscription()");
	present = SubscriptionLockOwn(name, AccessExclusiveLock);
	begin_declaration(&declaration, name);
	SPI_connect();
	read_present(&declaration);
	set_filters(&declaration, fcinfo->args[1], fcinfo->args[2], fcinfo->args[10], true);
	set_choice(&declaration, OPTION_ON_FAILURE, fcinfo->args[3], "on_failure", failures);
	set_attempts(&declaration, fcinfo->args[4]);
	set_interval(&declaration, OPTION_RETRY_DELAY, fcinfo->args[5], "retry_delay", 0);
	set_interval(&declaration, OPTION_RETRY_DELAY_MAX, fcinfo->args[6], "retry_delay_max", 0);
	set_interval(&declaration, OPTION_LEASE, fcinfo->args[7], "lease", 1);
	set_role(&declaration, OPTION_CONSUMER_ROLE, fcinfo->args[8], "is to receive events");
	set_role(&declaration, OPTION_OWNER, fcinfo->args[9], "is to own the subscription");
	check_options(&declaration);
	check_owner(&declaration, present->owner);
	if (filters_differ(&declaration))
		filter_anew(&declaration);
	(void) SubscriptionWrite(&update, declaration.values, declaration.nulls);
	if (!PG_ARGISNULL(8) && !OidIsValid(PG_GETARG_OID(8)))
		(void) SubscriptionWrite(&no_consumers, declaration.values, NULL);
	SPI_finish();
	WakeupAtEnd();
	PG_RETURN_VOID();
}

/* The options that it has now, in the memory of SPI. */
static void
read_present(Declaration *declaration)
{
	static InternalQuery query = {
		.sql = "SELECT aggregate_types, event_types, ordering, on_failure, max_attempts, retry_delay,"
		" retry_delay_max, lease,"
		" nullif(" REGISTRY_ROLE("consumer_role", "consumer_role_name") ", 0)::pg_catalog.regrole,"
		" " REGISTRY_ROLE("owner", "owner_name") "::pg_catalog.regrole, tenant_id, tags"
		" FROM cqrs_es.subscriptions WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	QueryRow	row;
	int			option;

	if (SubscriptionQuery(&query, declaration->values, NULL) != 1)
		elog(ERROR, "a subscription that is locked has gone");
	row = InternalQueryRow(0);
	for (option = 0; option < OPTIONS; option++)
	{
		NullableDatum value;

		value.value = SPI_getbinval(row.tuple, row.desc, option + 1, &value.isnull);
		set_option(declaration, option, value);
	}
}

/* Are they other filters than those in the row?  An empty array becomes null before. */
static bool
filters_differ(const Declaration *declaration)
{
	static InternalQuery query = {
		.sql = "SELECT FROM cqrs_es.subscriptions WHERE name OPERATOR(pg_catalog.=) $1"
		" AND NOT (" SAME_FILTERS ")",
		.nargs = OPTIONS + 1,.argtypes = OPTION_ARGTYPES
	};

	return SubscriptionQuery(&query, (Datum *) declaration->values, declaration->nulls) > 0;
}

/*
 * The filter becomes another one.  What is in hand was chosen by the old one, so it
 * is taken back; what was counted was of events that may not come again.  A stream that
 * is blocked by an event that is left out goes on.
 */
static void
filter_anew(const Declaration *declaration)
{
	static InternalQuery shares = {
		.sql = "UPDATE cqrs_es.shares SET batch = NULL, batch_kind = NULL, batch_end = NULL,"
		" batch_count = NULL, leased_until = NULL, has_notes = false, alone_position = NULL,"
		" deliveries = 0, lost_by = NULL,"
		" retry_at = NULL, failed_position = NULL, attempts = 0, error = NULL"
		" WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery letters = {
		.sql = "UPDATE cqrs_es.dead_letters AS l SET state = 'discarded', reason = 'filter changed',"
		" decided_by = $4, decided_at = pg_catalog.clock_timestamp(), retry_at = NULL, batch = NULL"
		" WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND state IN ('blocked', 'redriven')"
		" AND NOT (coalesce(aggregate_type OPERATOR(pg_catalog.=) ANY ($2), true)"
		" AND coalesce(event_type OPERATOR(pg_catalog.=) ANY ($3), true)"
		" AND coalesce($5 OPERATOR(pg_catalog.<@) ARRAY(SELECT t.tag::pg_catalog.text FROM cqrs_es.event_tags AS t"
		" WHERE t.global_position OPERATOR(pg_catalog.=) l.global_position"
		" AND t.tenant_id OPERATOR(pg_catalog.=) l.tenant_id), true))",
		.nargs = 5,.argtypes = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTARRAYOID}
	};
	static InternalQuery streams = {
		.sql = "UPDATE cqrs_es.parked_streams AS p SET batch = NULL, handed_to = NULL, attempts = 0,"
		" deliveries = 0, lost_by = NULL, retry_at = CASE WHEN EXISTS (SELECT"
		" FROM cqrs_es.dead_letters AS d WHERE d.state OPERATOR(pg_catalog.=) 'blocked'"
		" AND d.subscription OPERATOR(pg_catalog.=) p.subscription"
		" AND d.aggregate_type OPERATOR(pg_catalog.=) p.aggregate_type"
		" AND d.aggregate_id OPERATOR(pg_catalog.=) p.aggregate_id"
		" AND d.tenant_id OPERATOR(pg_catalog.=) p.tenant_id)"
		" THEN p.retry_at ELSE coalesce(p.retry_at, pg_catalog.clock_timestamp()) END"
		" WHERE p.subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		values[5] = {declaration->values[0], declaration->values[1], declaration->values[2],
		PointerGetDatum(SubscriptionDecider()), declaration->values[OPTION_TAGS + 1]};
	char		nulls[5] = {' ', declaration->nulls[1], declaration->nulls[2], ' ',
		declaration->nulls[OPTION_TAGS + 1]};

	(void) SubscriptionWrite(&shares, values, NULL);
	(void) SubscriptionWrite(&letters, values, nulls);
	(void) SubscriptionWrite(&streams, values, NULL);
	SubscriptionForgetNotes(DatumGetTextPP(values[0]));
}

/*
 * Another owner must be one whom the caller can become, as for ALTER TABLE ... OWNER
 * TO, and one who may have it: 42501.  Who is missing cannot own it: 42704.
 */
static void
check_owner(const Declaration *declaration, Oid present)
{
	Oid			owner = DatumGetObjectId(declaration->values[OPTION_OWNER + 1]);

	if (declaration->nulls[OPTION_OWNER + 1] == 'n' || !OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that owned the subscription does not exist"),
				 errhint("Give it an owner: alter_subscription(..., owner => ...).")));
	if (owner != present)
		compat_check_can_set_role(GetUserId(), owner);
}

/*
 * SQL: drop_subscription(name, if_exists); its dead letters go with it.
 */
Datum
cqrs_es_drop_subscription(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "subscription name", SUBSCRIPTION_NAME_MAX_BYTES);

	FeedNameRefuse(name, "drop_subscription()", "drop_projection(), or alter_projection(..., mode => 'sync')");
	SubscriptionBegin("drop_subscription()");
	if (!lock_to_drop(name, RegistryIfExists(fcinfo->args[1])))
		PG_RETURN_VOID();
	DeclarationDrop(name);
	PG_RETURN_VOID();
}

/* The same for one that is locked. */
void
DeclarationDrop(const text *name)
{
	static InternalQuery drops[] = {
		{.sql = "DELETE FROM cqrs_es.shares WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}},
		{.sql = "DELETE FROM cqrs_es.parked_streams WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}},
		{.sql = "DELETE FROM cqrs_es.dead_letters WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}},
		{.sql = "DELETE FROM cqrs_es.consumers WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}},
		{.sql = "DELETE FROM cqrs_es.subscriptions WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}}
	};
	Datum		value = PointerGetDatum(name);
	int			i;

	SPI_connect();
	SubscriptionForgetNotes(name);
	for (i = 0; i < (int) lengthof(drops); i++)
		(void) SubscriptionWrite(&drops[i], &value, NULL);
	SPI_finish();
	WakeupAtEnd();
}

/*
 * Lock a subscription of the caller's own (42501).  When it is not there, or gone when
 * it could be locked: false with if_exists, else QE402.
 */
static bool
lock_to_drop(const text *name, bool if_exists)
{
	Subscription *subscription = SubscriptionFind(name);

	if (subscription)
	{
		SubscriptionRequireOwner(subscription);
		SubscriptionLock(name, AccessExclusiveLock);
		subscription = SubscriptionFind(name);
	}
	if (subscription == NULL)
	{
		RegistryReportMissing(if_exists, ERRCODE_UNDEFINED_SUBSCRIPTION,
							  SUBSCRIPTION_MISSING_HINT,
							  psprintf("subscription \"%s\" does not exist", text_to_cstring(name)));
		return false;
	}
	SubscriptionRequireOwner(subscription);
	return true;
}

/*
 * Is there such a subscription already?  Then it must be the caller's own, and the
 * same (42710).  Whether it is paused is left as it is.  Between SPI_connect
 * and SPI_finish.
 */
static bool
is_there(const Declaration *declaration)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.concat_ws(', ',"
		OTHER_TYPES("aggregate_types", "$2") "," OTHER_TYPES("event_types", "$3") ","
		OTHER_TYPES("tags", "$13") ","
		DIFFERENT("ordering", "$4") "," DIFFERENT("on_failure", "$5") ","
		DIFFERENT("max_attempts", "$6") "," DIFFERENT("retry_delay", "$7") ","
		DIFFERENT("retry_delay_max", "$8") "," DIFFERENT("lease", "$9") ","
		" CASE WHEN " REGISTRY_ROLE("consumer_role", "consumer_role_name")
		" IS DISTINCT FROM coalesce($10, 0)::pg_catalog.oid"
		" THEN pg_catalog.concat('consumer_role is ', coalesce(consumer_role_name, 'NULL')) END,"
		" CASE WHEN (tenant_id IS NULL) IS DISTINCT FROM ($12 IS NULL)"
		" THEN pg_catalog.concat('all_tenants is ', tenant_id IS NULL)"
		" WHEN tenant_id IS DISTINCT FROM $12 THEN 'tenant is another' END) AS differences"
		" FROM cqrs_es.subscriptions WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = OPTIONS + 1,.argtypes = OPTION_ARGTYPES
	};
	text	   *name = DatumGetTextPP(declaration->values[0]);
	Subscription *present = SubscriptionFind(name);
	QueryRow	row;
	char	   *differences;

	if (present == NULL)
		return false;
	if (!SubscriptionIsOwn(present))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is a subscription \"%s\" already", text_to_cstring(name)),
				 errdetail("It is of another owner or tenant. Names are unique in the database."),
				 errhint("Take another name.")));
	/* it may have been dropped meanwhile, unless it is locked */
	if (SubscriptionQuery(&query, (Datum *) declaration->values, declaration->nulls) == 0)
		return false;
	row = InternalQueryRow(0);
	differences = InternalQueryText(&row, "differences");
	if (differences[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists, and is another one", text_to_cstring(name)),
				 errdetail("Its %s.", differences),
				 errhint("alter_subscription() changes what can be changed; for the rest drop it with drop_subscription() and create it anew.")));
	return true;
}

/*
 * Behind which position it begins.  At the end: behind all that is in the log, or on
 * its way there, for which it waits; so nothing that comes later can stand in front.
 */
static int64
first_position(FunctionCallInfo fcinfo)
{
	bool		at_end = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	int64		position = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3);

	if (at_end && position != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_after and start_at_end cannot be given both")));
	if (at_end)
	{
		SubscriptionPatience patience;

		position = SubscriptionLogEnd();
		SubscriptionPatienceBegin(&patience, "transactions that have appended and are open or prepared");
		HorizonAwaitWriters();
		SubscriptionPatienceEnd(&patience);
		return position;
	}
	SubscriptionRequirePosition("start_after", position);
	return position;
}

/*-------------------------------------------------------------------------
 * options
 *-------------------------------------------------------------------------
 */

/* None is given. */
static void
begin_declaration(Declaration *declaration, const text *name)
{
	memset(declaration->nulls, 'n', sizeof(declaration->nulls));
	memset(declaration->values, 0, sizeof(declaration->values));
	declaration->values[0] = PointerGetDatum(name);
	declaration->nulls[0] = ' ';
}

static void
set_option(Declaration *declaration, Option option, NullableDatum value)
{
	declaration->values[option + 1] = value.value;
	declaration->nulls[option + 1] = value.isnull ? 'n' : ' ';
}

static void
set_value(Declaration *declaration, Option option, Datum value)
{
	NullableDatum given = {.value = value};

	set_option(declaration, option, given);
}

static void
set_filters(Declaration *declaration, NullableDatum aggregate_types, NullableDatum event_types,
			NullableDatum tags, bool may_be_empty)
{
	set_types(declaration, OPTION_AGGREGATE_TYPES, aggregate_types, "aggregate_types",
			  "aggregate type", AGGREGATE_TYPE_MAX_BYTES, may_be_empty);
	set_types(declaration, OPTION_EVENT_TYPES, event_types, "event_types",
			  "event type", EVENT_TYPE_MAX_BYTES, may_be_empty);
	set_types(declaration, OPTION_TAGS, tags, "tags", "tag", EVENT_TAG_MAX_BYTES, may_be_empty);
}

/* Which types pass, or which tags are wanted; an empty array lifts the filter. */
static void
set_types(Declaration *declaration, Option option, NullableDatum value, const char *what,
		  const char *element, int max_bytes, bool may_be_empty)
{
	ArrayType  *types;

	if (value.isnull)
		return;
	types = DatumGetArrayTypeP(value.value);
	EventFilterCheckTypes(types, what, element, max_bytes, may_be_empty);
	value.isnull = ARR_NDIM(types) == 0;
	set_option(declaration, option, value);
}

/* One of a few words; 22023. */
static void
set_choice(Declaration *declaration, Option option, NullableDatum value, const char *what,
		   const char *const *choices)
{
	char	   *given;
	int			i;

	if (value.isnull)
		return;
	given = text_to_cstring(DatumGetTextPP(value.value));
	for (i = 0; choices[i]; i++)
		if (strcmp(given, choices[i]) == 0)
		{
			set_option(declaration, option, value);
			return;
		}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s cannot be \"%s\"", what, given),
			 choices[2] ? errhint("It is \"%s\", \"%s\" or \"%s\".", choices[0], choices[1], choices[2]) :
			 errhint("It is \"%s\" or \"%s\".", choices[0], choices[1])));
}

static void
set_attempts(Declaration *declaration, NullableDatum value)
{
	if (value.isnull)
		return;
	if (DatumGetInt32(value.value) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts must be positive")));
	set_option(declaration, OPTION_MAX_ATTEMPTS, value);
}

/* At least so many microseconds, at most a year; 22023. */
static void
set_interval(Declaration *declaration, Option option, NullableDatum value, const char *what,
			 int64 least)
{
	if (value.isnull)
		return;
	SubscriptionCheckInterval(what, DatumGetIntervalP(value.value), least);
	set_option(declaration, option, value);
}

/*
 * A role that exists, locked against its drop to the end of the transaction; 42704.
 * The oid 0 is no role.
 */
static void
set_role(Declaration *declaration, Option option, NullableDatum value, const char *what)
{
	NullableDatum nobody = {.isnull = true};
	Oid			role;

	if (value.isnull)
		return;
	role = DatumGetObjectId(value.value);
	if (!OidIsValid(role))
	{
		set_option(declaration, option, nobody);
		return;
	}
	LockSharedObject(AuthIdRelationId, role, 0, AccessShareLock);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u, which %s, does not exist", role, what)));
	set_option(declaration, option, value);
}

/* What a new subscription has where nothing was given. */
static void
set_defaults(Declaration *declaration)
{
	static Interval retry_delay = {.time = USECS_PER_SEC};
	static Interval retry_delay_max = {.time = 5 * USECS_PER_MINUTE};
	static Interval lease = {.time = 30 * USECS_PER_SEC};
	bool		in_log_order;

	set_default(declaration, OPTION_ORDERING, CStringGetTextDatum("stream"));
	in_log_order = option_is(declaration, OPTION_ORDERING, "log");
	set_default(declaration, OPTION_ON_FAILURE, CStringGetTextDatum(in_log_order ? "stop" : "block"));
	set_default(declaration, OPTION_MAX_ATTEMPTS, Int32GetDatum(10));
	set_default(declaration, OPTION_RETRY_DELAY, IntervalPGetDatum(&retry_delay));
	set_default(declaration, OPTION_RETRY_DELAY_MAX, IntervalPGetDatum(&retry_delay_max));
	set_default(declaration, OPTION_LEASE, IntervalPGetDatum(&lease));
}

static void
set_default(Declaration *declaration, Option option, Datum value)
{
	if (declaration->nulls[option + 1] == 'n')
		set_value(declaration, option, value);
}

static bool
option_is(const Declaration *declaration, Option option, const char *word)
{
	return strcmp(text_to_cstring(DatumGetTextPP(declaration->values[option + 1])), word) == 0;
}

/* Do all options go together?  22023. */
static void
check_options(const Declaration *declaration)
{
	if (option_is(declaration, OPTION_ORDERING, "log") &&
		!option_is(declaration, OPTION_ON_FAILURE, "stop"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("in the order of the log on_failure can only be \"stop\""),
				 errdetail("What comes behind an event that failed would be out of order.")));
	if (SubscriptionUsecs(DatumGetIntervalP(declaration->values[OPTION_RETRY_DELAY + 1])) >
		SubscriptionUsecs(DatumGetIntervalP(declaration->values[OPTION_RETRY_DELAY_MAX + 1])))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("retry_delay must not be longer than retry_delay_max")));
}
