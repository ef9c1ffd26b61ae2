-- 512_closed_stream: streams that have ended

CREATE FUNCTION cqrs_es.close_stream(aggregate_type text, aggregate_id text, reason text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_close_stream';
COMMENT ON FUNCTION cqrs_es.close_stream(text, text, text) IS
    'ends a stream: appends an event $closed, behind which nothing can be appended; returns its version';
REVOKE EXECUTE ON FUNCTION cqrs_es.close_stream(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.reopen_stream(aggregate_type text, aggregate_id text, reason text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_reopen_stream';
COMMENT ON FUNCTION cqrs_es.reopen_stream(text, text, text) IS
    'lets a closed stream go on: appends an event $reopened; returns its version';
REVOKE EXECUTE ON FUNCTION cqrs_es.reopen_stream(text, text, text) FROM PUBLIC;
