-- 880_decision: what people decide about dead letters: once more, or never

CREATE FUNCTION cqrs_es.redrive(
    subscription    text,
    dead_letter_id  bigint DEFAULT NULL,
    aggregate_type  text DEFAULT NULL,
    aggregate_id    text DEFAULT NULL,
    max_count       bigint DEFAULT NULL
) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_redrive';
COMMENT ON FUNCTION cqrs_es.redrive(text, bigint, text, text, bigint) IS
    'tries again what failed for good, all of it or one letter, type or stream: blocked streams go on, skipped events are handed out once more, out of order; returns how many';
REVOKE EXECUTE ON FUNCTION cqrs_es.redrive(text, bigint, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION cqrs_es.discard_dead_letter(id bigint, reason text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_discard_dead_letter';
COMMENT ON FUNCTION cqrs_es.discard_dead_letter(bigint, text) IS
    'gives up an event that failed for good; the stream that it blocks goes on behind it';
REVOKE EXECUTE ON FUNCTION cqrs_es.discard_dead_letter(bigint, text) FROM PUBLIC;
