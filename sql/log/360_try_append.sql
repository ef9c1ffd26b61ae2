-- 360_try_append: the way in for whom an error costs more than a row

CREATE TYPE cqrs_es.append_outcome AS (
    outcome         text,
    version         bigint,
    global_position bigint
);
COMMENT ON TYPE cqrs_es.append_outcome IS
    'appended, repeated (it was there already, by its event ids) or conflict; the stream''s version then; and the global position of the last event, NULL after a conflict';

CREATE FUNCTION cqrs_es.try_append_event(
    aggregate_type   text,
    aggregate_id     text,
    event_type       text,
    payload          jsonb,
    expected_version bigint DEFAULT NULL,
    metadata         jsonb DEFAULT '{}',
    event_id         uuid DEFAULT NULL,
    event_version    text DEFAULT '1',
    tags             text[] DEFAULT NULL
) RETURNS cqrs_es.append_outcome
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT cqrs_es.append_support
    AS 'MODULE_PATHNAME', 'cqrs_es_try_append_event';
COMMENT ON FUNCTION cqrs_es.try_append_event(text, text, text, jsonb, bigint, jsonb, uuid, text, text[]) IS
    'append_event that tells of a version conflict in its row, where the other raises QE001: outcome conflict, version that of the stream; nothing was written then, and the transaction goes on';

CREATE FUNCTION cqrs_es.try_append_events(
    aggregate_type   text,
    aggregate_id     text,
    events           jsonb,
    expected_version bigint DEFAULT NULL
) RETURNS cqrs_es.append_outcome
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT cqrs_es.append_support
    AS 'MODULE_PATHNAME', 'cqrs_es_try_append_events';
COMMENT ON FUNCTION cqrs_es.try_append_events(text, text, jsonb, bigint) IS
    'append_events that tells of a version conflict in its row, as try_append_event';

CREATE FUNCTION cqrs_es.try_append_event_arrays(
    aggregate_type   text,
    aggregate_id     text,
    event_types      text[],
    payloads         jsonb[],
    expected_version bigint DEFAULT NULL,
    metadata         jsonb[] DEFAULT NULL,
    event_ids        uuid[] DEFAULT NULL,
    event_versions   text[] DEFAULT NULL,
    tags             jsonb[] DEFAULT NULL
) RETURNS cqrs_es.append_outcome
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    SUPPORT cqrs_es.append_support
    AS 'MODULE_PATHNAME', 'cqrs_es_try_append_event_arrays';
COMMENT ON FUNCTION cqrs_es.try_append_event_arrays(text, text, text[], jsonb[], bigint, jsonb[], uuid[], text[], jsonb[]) IS
    'append_event_arrays that tells of a version conflict in its row, as try_append_event';
