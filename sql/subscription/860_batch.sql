-- 860_batch: a batch in hand is acknowledged, given back, or held for longer

CREATE FUNCTION cqrs_es.ack_events(batch uuid) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_ack_events';
COMMENT ON FUNCTION cqrs_es.ack_events(uuid) IS
    'all events of the batch are done, but those that were nacked and what is behind them in their streams; returns how many are done';

CREATE FUNCTION cqrs_es.nack_event(
    batch           uuid,
    global_position bigint,
    error           text,
    retry_after     interval DEFAULT NULL,
    give_up         boolean DEFAULT false,
    event_id        uuid DEFAULT NULL
) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_nack_event';
COMMENT ON FUNCTION cqrs_es.nack_event(uuid, bigint, text, interval, boolean, uuid) IS
    'an event of the batch failed; pass over those behind it in its stream. Returns what the acknowledgement of the batch will do: retry, blocked, skipped, stopped; or halted, in the order of the log: pass over all that is behind it; event_id: which one, where restored events share a position';

CREATE FUNCTION cqrs_es.extend_lease(batch uuid, "by" interval DEFAULT NULL) RETURNS timestamptz
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_extend_lease';
COMMENT ON FUNCTION cqrs_es.extend_lease(uuid, interval) IS
    'the batch stays in hand for so long from now on, by default as long as the subscription says; nobody takes it before the transaction ends';

CREATE FUNCTION cqrs_es.release_batch(batch uuid) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_release_batch';
COMMENT ON FUNCTION cqrs_es.release_batch(uuid) IS
    'give the batch back: nothing of it is done, and others get it at once';
