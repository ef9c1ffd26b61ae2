-- 935_seal: what proves that nothing was changed.  See src/seal/seal.c

CREATE TABLE cqrs_es.seals (
    seal            bigint PRIMARY KEY,
    after_position  bigint NOT NULL,
    up_to_position  bigint NOT NULL,
    events          bigint NOT NULL,
    changes         bigint NOT NULL,
    changes_digest  bytea NOT NULL,
    sealed_at       timestamptz NOT NULL,
    sealed_by       text COLLATE "C" NOT NULL,
    previous_digest bytea NOT NULL,
    digest          bytea NOT NULL
);
COMMENT ON TABLE cqrs_es.seals IS 'seals of the log, made by seal(), each of which covers those before it; publish their digests';
COMMENT ON COLUMN cqrs_es.seals.seal IS 'counted from 1, at each node; the upper bits have the number of the node, as in a position';
COMMENT ON COLUMN cqrs_es.seals.after_position IS 'it covers the events above this position, ...';
COMMENT ON COLUMN cqrs_es.seals.up_to_position IS '... up to this one';
COMMENT ON COLUMN cqrs_es.seals.changes IS 'and so many changes of sealed events that were made by rule since the seal before';
COMMENT ON COLUMN cqrs_es.seals.previous_digest IS 'of the seal before; zeros in the first';
COMMENT ON COLUMN cqrs_es.seals.digest IS 'SHA-256 of all that, and of the events';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.seals', '');

CREATE TABLE cqrs_es.seal_blocks (
    seal           bigint NOT NULL,
    up_to_position bigint NOT NULL,
    events         bigint NOT NULL,
    digest         bytea NOT NULL,
    PRIMARY KEY (seal, up_to_position)
);
COMMENT ON TABLE cqrs_es.seal_blocks IS
    'digests of 256 events each, by which it is known where in a sealed range something was changed';
COMMENT ON COLUMN cqrs_es.seal_blocks.up_to_position IS 'the block begins where the one before it ends, or the seal begins';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.seal_blocks', '');

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.seals
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change('seals');
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.seal_blocks
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change('seals');

CREATE FUNCTION cqrs_es.seal(up_to_position bigint DEFAULT NULL) RETURNS SETOF cqrs_es.seals
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1
    AS 'MODULE_PATHNAME', 'cqrs_es_seal';
COMMENT ON FUNCTION cqrs_es.seal(bigint) IS
    'seals the settled events since the last seal, of all tenants, and returns the newest seal, whose digest is to be published; no row while there is nothing to seal';
REVOKE EXECUTE ON FUNCTION cqrs_es.seal(bigint) FROM PUBLIC;
