-- 970_kept_shards: which streams are this server's, where there are several

CREATE FUNCTION cqrs_es.stream_hash(aggregate_type text, aggregate_id text) RETURNS integer
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_stream_hash';
COMMENT ON FUNCTION cqrs_es.stream_hash(text, text) IS
    'the first four bytes of the SHA-256 of "type/id" in UTF-8, without the sign: its last bits are the stream''s shard; the same in every version, encoding and language';

CREATE TABLE cqrs_es.kept_shards (
    shards      integer[] NOT NULL,
    shard_count integer NOT NULL,
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
COMMENT ON TABLE cqrs_es.kept_shards IS
    'one row: the shards that this server keeps; none: all of them; kept by keep_shards';
COMMENT ON COLUMN cqrs_es.kept_shards.shard_count IS 'of so many, a power of two';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.kept_shards', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.kept_shards FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.kept_shards ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.keep_shards(shards integer[], shard_count integer) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_keep_shards';
COMMENT ON FUNCTION cqrs_es.keep_shards(integer[], integer) IS
    'says which of the shards this server keeps; from then on a call that is routed here for a stream of another is refused (QE605); waits for those that are running; shards NULL: it keeps all';
REVOKE EXECUTE ON FUNCTION cqrs_es.keep_shards(integer[], integer) FROM PUBLIC;
