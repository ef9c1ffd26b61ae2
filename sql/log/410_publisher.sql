-- 410_publisher: the publisher says up to where its log is settled, in a table of 390_published

CREATE FUNCTION cqrs_es.publish_settled() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_publish_settled';
COMMENT ON FUNCTION cqrs_es.publish_settled() IS
    'tells subscribers of a logical replication up to where the log is settled; to be called by the publisher every second or so; returns that position';
REVOKE EXECUTE ON FUNCTION cqrs_es.publish_settled() FROM PUBLIC;
