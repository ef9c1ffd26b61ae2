-- 350_append: the way in

-- A type with a name, since the executor would put one of OUT parameters together
-- anew at every call.
CREATE TYPE cqrs_es.append_result AS (
    version         bigint,
    global_position bigint
);
COMMENT ON TYPE cqrs_es.append_result IS
    'the stream''s new version, and the global position of the last event appended';

CREATE FUNCTION cqrs_es.append_support(request internal) RETURNS internal
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_append_support';
COMMENT ON FUNCTION cqrs_es.append_support(internal) IS
    'internal: makes calls in FROM cheaper, for the planner';

CREATE FUNCTION cqrs_es.append_event(
    aggregate_type   text,
    aggregate_id     text,
    event_type       text,
    payload          jsonb,
    expected_version bigint DEFAULT NULL,
    metadata         jsonb DEFAULT '{}',
    event_id         uuid DEFAULT NULL,
    event_version    text DEFAULT '1',
    tags             text[] DEFAULT NULL
) RETURNS cqrs_es.append_result
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT cqrs_es.append_support
    AS 'MODULE_PATHNAME', 'cqrs_es_append_event';
COMMENT ON FUNCTION cqrs_es.append_event(text, text, text, jsonb, bigint, jsonb, uuid, text, text[]) IS
    'appends one event; expected_version: NULL any, 0 no such stream, n just this version, -1 the stream exists; tags: beside those that define_tags gives it; returns the stream''s new version and the event''s global position';

CREATE FUNCTION cqrs_es.append_events(
    aggregate_type   text,
    aggregate_id     text,
    events           jsonb,
    expected_version bigint DEFAULT NULL
) RETURNS cqrs_es.append_result
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT cqrs_es.append_support
    AS 'MODULE_PATHNAME', 'cqrs_es_append_events';
COMMENT ON FUNCTION cqrs_es.append_events(text, text, jsonb, bigint) IS
    'appends a JSON array of {"type", "payload", "metadata", "id", "version", "tags"}, all or nothing; returns the stream''s new version and the last global position';

CREATE FUNCTION cqrs_es.append_event_arrays(
    aggregate_type   text,
    aggregate_id     text,
    event_types      text[],
    payloads         jsonb[],
    expected_version bigint DEFAULT NULL,
    metadata         jsonb[] DEFAULT NULL,
    event_ids        uuid[] DEFAULT NULL,
    event_versions   text[] DEFAULT NULL,
    tags             jsonb[] DEFAULT NULL
) RETURNS cqrs_es.append_result
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT cqrs_es.append_support
    AS 'MODULE_PATHNAME', 'cqrs_es_append_event_arrays';
COMMENT ON FUNCTION cqrs_es.append_event_arrays(text, text, text[], jsonb[], bigint, jsonb[], uuid[], text[], jsonb[]) IS
    'append_events for drivers that send arrays more easily than nested JSON; arrays have one element per event, that of tags is a JSON array of strings';

CREATE TABLE cqrs_es.conflict_counts ();
COMMENT ON TABLE cqrs_es.conflict_counts IS
    'internal, without rows: its statistics count lost races, and those that the client was told of; see counters';
