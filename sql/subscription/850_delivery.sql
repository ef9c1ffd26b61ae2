-- 850_delivery: events are handed out

CREATE FUNCTION cqrs_es.receive_events(
    subscription text,
    consumer     text,
    max_count    integer DEFAULT 100,
    ack          uuid DEFAULT NULL,
    resume       boolean DEFAULT false
) RETURNS TABLE (
    batch           uuid,
    attempt         integer,
    redriven        boolean,
    leased_until    timestamptz,
    global_position bigint,
    sequence        bigint,
    created_at      timestamptz,
    event_id        uuid,
    tenant_id       text,
    aggregate_type  text,
    aggregate_id    text,
    event_type      text,
    event_version   text,
    payload         jsonb,
    metadata        jsonb
)
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_receive_events';
COMMENT ON FUNCTION cqrs_es.receive_events(text, text, integer, uuid, boolean) IS
    'the next events of a subscription, in hand until batch is acknowledged or leased_until is over; ack: the batch before is done; resume: the consumer has been started and has nothing in hand; no rows: nothing to do now';
