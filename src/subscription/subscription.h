/*-------------------------------------------------------------------------
 * subscription.h
 *	  Who takes events out of the log, which ones, and what follows when one fails.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SUBSCRIPTION_H
#define CQRS_ES_SUBSCRIPTION_H

#include "datatype/timestamp.h"
#include "storage/lockdefs.h"

#include "base/internal_query.h"
#include "log/event_filter.h"

#define SUBSCRIPTION_NAME_MAX_BYTES 255

/* What happens to an event that has failed often enough. */
typedef enum SubscriptionOnFailure
{
	ON_FAILURE_BLOCK,			/* its stream waits for a person */
	ON_FAILURE_SKIP,			/* its stream goes on behind it */
	ON_FAILURE_STOP				/* the whole subscription waits */
} SubscriptionOnFailure;

/* A subscription as its row says, palloc'd. */
typedef struct Subscription
{
	text	   *name;
	text	   *tenant_id;		/* NULL: all tenants */
	EventFilter filter;			/* with the tenant */
	bool		in_log_order;
	SubscriptionOnFailure on_failure;
	int			max_attempts;
	Interval   *retry_delay;
	Interval   *retry_delay_max;
	Interval   *lease;
	Oid			owner;			/* InvalidOid: missing */
	Oid			consumer_role;	/* InvalidOid: none, or missing */
	bool		paused;
} Subscription;

/* A wait for locks that does not go on without end. */
typedef struct SubscriptionPatience
{
	int			guc_level;
	ErrorContextCallback callback;
} SubscriptionPatience;

/* of one that does not exist */
#define SUBSCRIPTION_MISSING_HINT "The view cqrs_es.subscription_status shows those that do; create_subscription() creates one."

extern void SubscriptionInit(void);
extern void SubscriptionBegin(const char *function);
extern void SubscriptionLock(const text *name, LOCKMODE mode);
extern bool SubscriptionTryLock(const text *name);
extern void SubscriptionPatienceBegin(SubscriptionPatience *patience, const char *what);
extern void SubscriptionPatienceEnd(SubscriptionPatience *patience);
extern Subscription *SubscriptionRead(const text *name);
extern Subscription *SubscriptionFind(const text *name);
extern Subscription *SubscriptionLockOwn(const text *name, LOCKMODE mode);
extern bool SubscriptionWants(const Subscription *subscription, const Event *event);
extern bool SubscriptionMayConsume(const Subscription *subscription);
extern void SubscriptionRequireConsumer(const Subscription *subscription);
extern void SubscriptionRequireOwner(const Subscription *subscription);
extern bool SubscriptionIsOwn(const Subscription *subscription);
extern bool SubscriptionTenantIsOwn(const text *tenant_id);
extern void SubscriptionRequireTenant(const text *tenant_id);
extern void SubscriptionRequirePosition(const char *argument, int64 position);
extern void SubscriptionRequireReadable(int64 position);
extern char *SubscriptionObstacle(int64 position);
extern int64 SubscriptionLogEnd(void);
extern void SubscriptionCheckInterval(const char *what, const Interval *interval, int64 least);
extern int64 SubscriptionUsecs(const Interval *interval);
extern text *SubscriptionDecider(void);
extern void SubscriptionStop(const Subscription *subscription, const char *error);

extern void SubscriptionInsertShare(const text *name, int64 position);
extern void SubscriptionForgetNotes(const text *name);
extern uint64 SubscriptionQuery(InternalQuery *query, Datum *values, const char *nulls);
extern uint64 SubscriptionWrite(InternalQuery *query, Datum *values, const char *nulls);

#endif							/* CQRS_ES_SUBSCRIPTION_H */
