-- 65_fold: replay

CREATE FUNCTION cqrs_es.aggregate_state(aggregate_type text, aggregate_id text) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_aggregate_state';
COMMENT ON FUNCTION cqrs_es.aggregate_state(text, text) IS
    'the state of an aggregate, replayed from its newest snapshot; NULL when it has no events';

CREATE FUNCTION cqrs_es.load_aggregate(
    aggregate_type text,
    aggregate_id   text,
    OUT version bigint,
    OUT state   jsonb
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_load_aggregate';
COMMENT ON FUNCTION cqrs_es.load_aggregate(text, text) IS
    'version and state of an aggregate, for a decision that is appended with this expected_version; version 0 and the initial state when it has no events';

CREATE FUNCTION cqrs_es.take_snapshot(aggregate_type text, aggregate_id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_take_snapshot';
COMMENT ON FUNCTION cqrs_es.take_snapshot(text, text) IS
    'saves the current state and returns its version, 0 when there are no events';
