-- 77_projection_rebuild: rebuild, pause and resume projections

CREATE FUNCTION cqrs_es.rebuild_projection(name text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_rebuild_projection';
COMMENT ON FUNCTION cqrs_es.rebuild_projection(text) IS
    'empties the read models of a projection and replays the log into them; returns how many events concerned it. Waits for open transactions that have appended; then writers of events that concern it wait for the end, unless the projection is paused';
REVOKE EXECUTE ON FUNCTION cqrs_es.rebuild_projection(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.pause_projection(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_pause_projection';
COMMENT ON FUNCTION cqrs_es.pause_projection(text) IS
    'appends pass the projection by, until resume_projection(); waits for open transactions that have appended what concerns it';
REVOKE EXECUTE ON FUNCTION cqrs_es.pause_projection(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.resume_projection(name text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_resume_projection';
COMMENT ON FUNCTION cqrs_es.resume_projection(text) IS
    'replays the events that a paused projection has missed, and lets it follow appends again; returns how many events those were. Waits for open transactions that have appended';
REVOKE EXECUTE ON FUNCTION cqrs_es.resume_projection(text) FROM PUBLIC;
