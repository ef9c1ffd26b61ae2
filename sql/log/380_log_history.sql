-- 380_log_history: which log is this, and where has it jumped?

-- The number is made by chance; pg_dump carries it along.  See src/log/log_history.c
CREATE SEQUENCE cqrs_es.log_number_seq AS bigint MINVALUE 1 CACHE 1;
COMMENT ON SEQUENCE cqrs_es.log_number_seq IS
    'the number of this log, from which log_id() makes its identity; not for drawing from';
SELECT pg_catalog.setval('cqrs_es.log_number_seq', n) FROM (SELECT pg_catalog.int8(('x' OPERATOR(pg_catalog.||)
    pg_catalog.right(pg_catalog.gen_random_uuid()::text, 12))::bit(48)) OPERATOR(pg_catalog.+) 1) AS number (n);
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.log_number_seq', '');

CREATE TABLE cqrs_es.log_histories (
    log_id         uuid PRIMARY KEY,
    last_position  bigint NOT NULL,
    first_position bigint NOT NULL,
    began_at       timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.log_histories IS 'the jumps of positions after a failover; kept by after_failover';
COMMENT ON COLUMN cqrs_es.log_histories.log_id IS 'identity of the log from then on';
COMMENT ON COLUMN cqrs_es.log_histories.last_position IS 'no event ever was or will be above it and ...';
COMMENT ON COLUMN cqrs_es.log_histories.first_position IS '... below this one, the first of the log from then on';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.log_histories', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.log_histories FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.log_histories ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.log_id() RETURNS uuid
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_log_id';
COMMENT ON FUNCTION cqrs_es.log_id() IS
    'the identity of this log; it changes with after_failover(), and tells a reader that its cursor is of a log that has lost its end';

CREATE FUNCTION cqrs_es.after_failover() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_after_failover';
COMMENT ON FUNCTION cqrs_es.after_failover() IS
    'to be called where the log may have lost its end, before anybody appends: positions go on above all that a reader can have seen, and the log gets another identity; returns the position above which they go on';
REVOKE EXECUTE ON FUNCTION cqrs_es.after_failover() FROM PUBLIC;
