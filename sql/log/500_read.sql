-- 500_read: reading the log

CREATE FUNCTION cqrs_es.read_stream(
    aggregate_type text,
    aggregate_id   text,
    from_sequence  bigint DEFAULT NULL,
    max_count      bigint DEFAULT NULL,
    backward       boolean DEFAULT false,
    raw            boolean DEFAULT false
) RETURNS SETOF cqrs_es.event
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_read_stream';
COMMENT ON FUNCTION cqrs_es.read_stream(text, text, bigint, bigint, boolean, boolean) IS
    'the events of one stream by sequence; from_sequence NULL is the stream''s beginning, or its end when reading backward; raw: payloads as they are stored, not lifted';

CREATE FUNCTION cqrs_es.read_all(
    after_position  bigint DEFAULT 0,
    max_count       bigint DEFAULT 1000,
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL,
    raw             boolean DEFAULT false,
    all_tenants     boolean DEFAULT false,
    tags            text[] DEFAULT NULL
) RETURNS SETOF cqrs_es.event
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_read_all';
COMMENT ON FUNCTION cqrs_es.read_all(bigint, bigint, text[], text[], boolean, boolean, text[]) IS
    'settled events of the whole log by global position: a reader that goes on after the last one it saw misses nothing; raw: payloads as they are stored, not lifted; of the current tenant, or of all for who may execute tenants()';

CREATE FUNCTION cqrs_es.read_page(
    after_position  bigint DEFAULT 0,
    max_count       bigint DEFAULT 1000,
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL,
    raw             boolean DEFAULT false,
    all_tenants     boolean DEFAULT false,
    tags            text[] DEFAULT NULL
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
    read_to         bigint
)
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_read_page';
COMMENT ON FUNCTION cqrs_es.read_page(bigint, bigint, text[], text[], boolean, boolean, text[]) IS
    'the events of read_all, each with read_to, the position to go on after; when none matched, one row with only that; raw: payloads as they are stored, not lifted';

CREATE FUNCTION cqrs_es.stream_version(aggregate_type text, aggregate_id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_stream_version';
COMMENT ON FUNCTION cqrs_es.stream_version(text, text) IS
    'the sequence of the stream''s last event, 0 when it has none';
