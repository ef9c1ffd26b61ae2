-- 514_deleted_stream: streams that are removed from the log

CREATE FUNCTION cqrs_es.delete_stream(aggregate_type text, aggregate_id text, reason text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_delete_stream';
COMMENT ON FUNCTION cqrs_es.delete_stream(text, text, text) IS
    'removes all events of a stream but a last one, $deleted, behind which nothing can be appended, and lets follow what held a copy; returns how many went, 0 when it has been deleted already';
REVOKE EXECUTE ON FUNCTION cqrs_es.delete_stream(text, text, text) FROM PUBLIC;
