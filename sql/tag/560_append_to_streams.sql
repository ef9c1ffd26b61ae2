-- 560_append_to_streams: several streams at once, and append conditions

CREATE FUNCTION cqrs_es.append_to_streams(
    events               jsonb,
    fail_if_events_match jsonb DEFAULT NULL,
    after_position       bigint DEFAULT 0
) RETURNS TABLE (
    aggregate_type  text,
    aggregate_id    text,
    version         bigint,
    global_position bigint
)
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_append_to_streams';
COMMENT ON FUNCTION cqrs_es.append_to_streams(jsonb, jsonb, bigint) IS
    'appends a JSON array of {"aggregate_type", "aggregate_id", "expected_version", "type", "payload", "metadata", "id", "version", "tags"} to any streams, all or nothing; an event without a stream becomes one of its own; fails (QE005) if an event above after_position matches the query; returns a row for each stream: its new version, and the position of its last event';
