-- 550_read_matching: the events that concern a decision

CREATE FUNCTION cqrs_es.read_matching(
    query          jsonb,
    after_position bigint DEFAULT 0,
    max_count      bigint DEFAULT NULL,
    backward       boolean DEFAULT false
) RETURNS TABLE (
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
    metadata        jsonb,
    tags            text[]
)
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_read_matching';
COMMENT ON FUNCTION cqrs_es.read_matching(jsonb, bigint, bigint, boolean) IS
    'the events that match [{"types": [...], "tags": [...]}, ...], which have one of the types and all of the tags of an item, by position, with their tags; exact for append_to_streams(): the last position read is its after_position';
