-- 660_strict: events that the reducers of an aggregate cannot take

CREATE FUNCTION cqrs_es.poisoned_streams(
    INOUT aggregate_type text DEFAULT NULL,
    OUT aggregate_id    text,
    OUT sequence        bigint,
    OUT global_position bigint,
    OUT event_type      text,
    OUT sqlstate        text,
    OUT message         text,
    OUT detail          text
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_poisoned_streams';
COMMENT ON FUNCTION cqrs_es.poisoned_streams(text) IS
    'streams of declared aggregate types that have no state, each with the first event that cannot be applied, and why';
