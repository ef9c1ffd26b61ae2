-- 370_log_end: the last position

CREATE FUNCTION cqrs_es.last_position() RETURNS bigint
    LANGUAGE C STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_last_position';
COMMENT ON FUNCTION cqrs_es.last_position() IS
    'the position of the last event that is visible, settled or not; NULL: the log is empty';
REVOKE EXECUTE ON FUNCTION cqrs_es.last_position() FROM PUBLIC;
