-- 480_event_wait: waiting for events without holding anything

CREATE PROCEDURE cqrs_es.wait_for_events(
    subscription    text DEFAULT NULL,
    after_position  bigint DEFAULT NULL,
    timeout         interval DEFAULT '30 seconds',
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL,
    all_tenants     boolean DEFAULT false,
    tags            text[] DEFAULT NULL,
    INOUT ready     boolean DEFAULT NULL
)
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_wait_for_events';
COMMENT ON PROCEDURE cqrs_es.wait_for_events(text, bigint, interval, text[], text[], boolean, text[], boolean) IS
    'waits until a subscription, or read_all after a position with the same filters, has something to hand out; holds no snapshot and no locks; ready: false when time ran out';

CREATE PROCEDURE cqrs_es.wait_until_settled(
    global_position bigint,
    timeout         interval DEFAULT '10 seconds',
    INOUT settled   boolean DEFAULT NULL
)
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_wait_until_settled';
COMMENT ON PROCEDURE cqrs_es.wait_until_settled(bigint, interval, boolean) IS
    'waits until everything up to a position is settled here; holds no snapshot and no locks; settled: false when time ran out';
