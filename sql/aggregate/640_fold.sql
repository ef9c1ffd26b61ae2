-- 640_fold: replay

CREATE FUNCTION cqrs_es.aggregate_state(
    aggregate_type text,
    aggregate_id   text,
    at_sequence    bigint DEFAULT NULL,
    at_time        timestamptz DEFAULT NULL
) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_aggregate_state';
COMMENT ON FUNCTION cqrs_es.aggregate_state(text, text, bigint, timestamptz) IS
    'the state of an aggregate, now or after an event or at a time, replayed from the newest snapshot before that; NULL when it had no events';

CREATE FUNCTION cqrs_es.load_aggregate(
    aggregate_type text,
    aggregate_id   text,
    at_sequence    bigint DEFAULT NULL,
    at_time        timestamptz DEFAULT NULL,
    OUT version bigint,
    OUT state   jsonb
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_load_aggregate';
COMMENT ON FUNCTION cqrs_es.load_aggregate(text, text, bigint, timestamptz) IS
    'version and state of an aggregate, for a decision that is appended with this expected_version; version 0 and the initial state when it had no events';

CREATE FUNCTION cqrs_es.replay(
    aggregate_type text,
    aggregate_id   text,
    from_sequence  bigint DEFAULT 1,
    max_count      bigint DEFAULT NULL,
    OUT sequence      bigint,
    OUT created_at    timestamptz,
    OUT event_type    text,
    OUT event_version text,
    OUT payload       jsonb,
    OUT metadata      jsonb,
    OUT state         jsonb
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_replay';
COMMENT ON FUNCTION cqrs_es.replay(text, text, bigint, bigint) IS
    'the debugger''s view: one row per event with the state after it';
