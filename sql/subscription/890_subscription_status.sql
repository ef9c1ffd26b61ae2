-- 890_subscription_status: how far subscriptions are, what failed, and who takes their events.
-- The views ask who may see what: see src/subscription/status.c.

CREATE FUNCTION cqrs_es.sees_subscription(name text, content boolean) RETURNS boolean
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_sees_subscription';
COMMENT ON FUNCTION cqrs_es.sees_subscription(text, boolean) IS
    'may the current role see how far a subscription is; with content: also what comes from events, its errors and streams';

CREATE FUNCTION cqrs_es.subscription_lag_events(name text) RETURNS bigint
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_subscription_lag_events';
COMMENT ON FUNCTION cqrs_es.subscription_lag_events(text) IS
    'how many events a subscription has not been through: counted up to 10,000, in the next 100,000 of the log, those too that an open transaction holds back';

CREATE FUNCTION cqrs_es.subscription_lag(name text) RETURNS interval
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_subscription_lag';
COMMENT ON FUNCTION cqrs_es.subscription_lag(text) IS
    'the age of the first event that a subscription has not been through; NULL: there is none';

CREATE FUNCTION cqrs_es.subscription_obstacle(name text) RETURNS text
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_subscription_obstacle';
COMMENT ON FUNCTION cqrs_es.subscription_obstacle(text) IS
    'why nothing can be handed out behind the position of a subscription; NULL: it can';

CREATE FUNCTION cqrs_es.subscription_seen(name text, OUT consumer text, OUT seen_at timestamptz) RETURNS SETOF record
    LANGUAGE C STABLE STRICT PARALLEL UNSAFE ROWS 10
    AS 'MODULE_PATHNAME', 'cqrs_es_subscription_seen';
COMMENT ON FUNCTION cqrs_es.subscription_seen(text) IS
    'who asked for events of a subscription, and when last; no rows on a standby';

CREATE VIEW cqrs_es.subscription_status WITH (security_barrier) AS
    SELECT s.name,
           CASE WHEN s.stopped_error IS NOT NULL OR o.obstacle IS NOT NULL THEN 'stopped' WHEN s.paused THEN 'paused' ELSE 'active' END AS state,
           h.position,
           cqrs_es.subscription_lag_events(s.name) AS lag_events,
           cqrs_es.subscription_lag(s.name) AS lag,
           (SELECT pg_catalog.count(*) FROM cqrs_es.subscription_seen(s.name) AS c
            WHERE c.seen_at OPERATOR(pg_catalog.>) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 min'::interval)) AS consumers,
           h.shares,
           h.in_hand,
           p.parked,
           p.blocked,
           p.next_retry_at,
           p.first_failed_at,
           d.dead_letters,
           h.lost,
           h.waits_until,
           ARRAY(SELECT l.pid FROM cqrs_es.shares AS x
               JOIN pg_catalog.pg_locks AS l ON l.transactionid OPERATOR(pg_catalog.=) x.xmax
               WHERE x.subscription OPERATOR(pg_catalog.=) s.name AND l.granted
               AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock') AS locked_by,
           coalesce(o.obstacle, CASE WHEN cqrs_es.sees_subscription(s.name, true) THEN coalesce(s.stopped_error, h.last_error,
               (SELECT x.error FROM cqrs_es.parked_streams AS x WHERE x.subscription OPERATOR(pg_catalog.=) s.name
                ORDER BY x.failed_at DESC LIMIT 1),
               (SELECT x.error FROM cqrs_es.dead_letters AS x WHERE x.subscription OPERATOR(pg_catalog.=) s.name
                AND x.state IN ('blocked', 'skipped') ORDER BY x.failed_at DESC LIMIT 1)) END) AS last_error,
           CASE WHEN cqrs_es.sees_subscription(s.name, true) THEN h.failed_position END AS failed_position,
           s.aggregate_types,
           s.event_types,
           s.tags,
           CASE WHEN cqrs_es.sees_subscription(s.name, true) THEN s.tenant_id END AS tenant_id,
           s.tenant_id IS NULL AS all_tenants,
           s.ordering,
           s.on_failure,
           s.max_attempts,
           s.lease,
           coalesce(s.owner, (SELECT r.oid FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) s.owner_name))::pg_catalog.regrole AS owner,
           coalesce(s.consumer_role, (SELECT r.oid FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) s.consumer_role_name))::pg_catalog.regrole AS consumer_role,
           s.created_at
    FROM cqrs_es.subscriptions AS s
    CROSS JOIN LATERAL (SELECT cqrs_es.subscription_obstacle(s.name) AS obstacle OFFSET 0) AS o
    CROSS JOIN LATERAL (
        SELECT pg_catalog.min(x.position) AS position,
               pg_catalog.count(*) AS shares,
               coalesce(pg_catalog.sum(x.batch_count) FILTER (WHERE x.batch IS NOT NULL), 0) AS in_hand,
               coalesce(pg_catalog.sum(x.deliveries), 0) AS lost,
               pg_catalog.max(x.retry_at) FILTER (WHERE x.retry_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()) AS waits_until,
               pg_catalog.max(x.error) AS last_error,
               pg_catalog.max(x.failed_position) AS failed_position
        FROM cqrs_es.shares AS x WHERE x.subscription OPERATOR(pg_catalog.=) s.name) AS h
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS parked,
               pg_catalog.count(*) FILTER (WHERE x.retry_at IS NULL) AS blocked,
               pg_catalog.min(x.retry_at) AS next_retry_at,
               pg_catalog.min(x.first_failed_at) AS first_failed_at
        FROM cqrs_es.parked_streams AS x WHERE x.subscription OPERATOR(pg_catalog.=) s.name) AS p
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS dead_letters
        FROM cqrs_es.dead_letters AS x WHERE x.subscription OPERATOR(pg_catalog.=) s.name
        AND x.state IN ('blocked', 'skipped')) AS d
    WHERE cqrs_es.sees_subscription(s.name, false);
COMMENT ON VIEW cqrs_es.subscription_status IS
    'subscriptions that the current role consumes, owns or monitors: how far they are, and what failed';
COMMENT ON COLUMN cqrs_es.subscription_status.state IS 'active; paused by somebody; stopped by itself, see last_error: since an event failed, or since the position is not one of this log';
COMMENT ON COLUMN cqrs_es.subscription_status.position IS 'all events up to here are done, parked, or dead letters';
COMMENT ON COLUMN cqrs_es.subscription_status.lag_events IS 'events behind the position, those in hand too: counted up to 10,000, in the next 100,000 of the log, those too that an open transaction holds back';
COMMENT ON COLUMN cqrs_es.subscription_status.lag IS 'the age of the first of them';
COMMENT ON COLUMN cqrs_es.subscription_status.consumers IS 'names that asked for events in the last minute';
COMMENT ON COLUMN cqrs_es.subscription_status.parked IS 'streams that wait behind an event that failed, the blocked ones too';
COMMENT ON COLUMN cqrs_es.subscription_status.blocked IS 'of these, streams that wait for redrive() or discard_dead_letter()';
COMMENT ON COLUMN cqrs_es.subscription_status.first_failed_at IS 'since when the first of them waits';
COMMENT ON COLUMN cqrs_es.subscription_status.dead_letters IS 'events that failed for good, about which nothing has been decided';
COMMENT ON COLUMN cqrs_es.subscription_status.lost IS 'hand-outs in a row of one event that was never acknowledged: its consumers die, or need longer than the lease';
COMMENT ON COLUMN cqrs_es.subscription_status.waits_until IS 'nothing is handed out before, since everything failed';
COMMENT ON COLUMN cqrs_es.subscription_status.locked_by IS 'sessions whose open transactions have shares of it locked: others cannot get these';
COMMENT ON COLUMN cqrs_es.subscription_status.last_error IS 'of events: for those who may consume it, NULL for others';
COMMENT ON COLUMN cqrs_es.subscription_status.failed_position IS 'in the order of the log: of the event that nothing goes past, since it failed';

CREATE VIEW cqrs_es.subscription_consumers WITH (security_barrier) AS
    SELECT s.name AS subscription,
           c.consumer,
           c.seen_at,
           c.slots,
           c.position,
           c.in_hand,
           c.handed_out_at,
           c.leased_until,
           c.leased_until OPERATOR(pg_catalog.<) pg_catalog.clock_timestamp() AS lease_is_over
    FROM cqrs_es.subscriptions AS s
    CROSS JOIN LATERAL (
        SELECT coalesce(x.consumer, h.consumer) AS consumer, x.seen_at, pg_catalog.bit_count(h.slots) AS slots,
               h.position, h.batch_count AS in_hand, h.handed_out_at, h.leased_until
        FROM cqrs_es.subscription_seen(s.name) AS x
        FULL JOIN (SELECT b.* FROM cqrs_es.shares AS b
            WHERE b.subscription OPERATOR(pg_catalog.=) s.name AND b.batch IS NOT NULL) AS h
            ON h.consumer OPERATOR(pg_catalog.=) x.consumer) AS c
    WHERE cqrs_es.sees_subscription(s.name, false);
COMMENT ON VIEW cqrs_es.subscription_consumers IS
    'who asks for events of subscriptions, and what they have in hand: a row for each batch, and for each consumer that has none';
COMMENT ON COLUMN cqrs_es.subscription_consumers.slots IS 'of 256, to which streams are hashed: how many are theirs while they have the batch';
COMMENT ON COLUMN cqrs_es.subscription_consumers.lease_is_over IS 'whoever asks next may get it';

CREATE VIEW cqrs_es.subscription_dead_letters WITH (security_barrier) AS
    SELECT d.id, d.subscription, d.state, d.tenant_id, d.aggregate_type, d.aggregate_id, d.sequence, d.global_position,
           d.event_id, d.event_type, d.error, d.attempts, d.failed_at, d.decided_by, d.decided_at, d.reason, d.retry_at
    FROM cqrs_es.dead_letters AS d
    WHERE d.subscription IN (SELECT s.name FROM cqrs_es.subscriptions AS s WHERE cqrs_es.sees_subscription(s.name, true));
COMMENT ON VIEW cqrs_es.subscription_dead_letters IS
    'events that subscriptions of the current role gave up, and what was decided about them';

CREATE VIEW cqrs_es.subscription_parked_streams WITH (security_barrier) AS
    SELECT p.subscription, p.tenant_id, p.aggregate_type, p.aggregate_id, p.sequence, p.attempts, p.error,
           p.retry_at, p.retry_at IS NULL AS is_blocked, p.batch IS NOT NULL AS in_hand, p.first_failed_at, p.failed_at
    FROM cqrs_es.parked_streams AS p
    WHERE p.subscription IN (SELECT s.name FROM cqrs_es.subscriptions AS s WHERE cqrs_es.sees_subscription(s.name, true));
COMMENT ON VIEW cqrs_es.subscription_parked_streams IS
    'streams that wait behind an event that failed, in subscriptions of the current role';
COMMENT ON COLUMN cqrs_es.subscription_parked_streams.sequence IS 'the first event that is not done';
COMMENT ON COLUMN cqrs_es.subscription_parked_streams.retry_at IS 'when it is handed out again; NULL: not before redrive() or discard_dead_letter()';
