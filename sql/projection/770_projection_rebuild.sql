-- 770_projection_rebuild: rebuild, pause and resume projections

CREATE FUNCTION cqrs_es.rebuild_projection(name text, on_error text DEFAULT 'stop') RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_rebuild_projection';
COMMENT ON FUNCTION cqrs_es.rebuild_projection(text, text) IS
    'empties the read models of a projection and replays the log into them; returns how many events concerned it. Waits for open transactions that have appended; then writers of events that concern it wait for the end, unless the projection is paused. on_error: stop, or skip, which records events that fail in skipped_events';
REVOKE EXECUTE ON FUNCTION cqrs_es.rebuild_projection(text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.pause_projection(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_pause_projection';
COMMENT ON FUNCTION cqrs_es.pause_projection(text) IS
    'appends pass the projection by, until resume_projection(); waits for open transactions that have appended what concerns it';
REVOKE EXECUTE ON FUNCTION cqrs_es.pause_projection(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.resume_projection(name text, on_error text DEFAULT 'stop') RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_resume_projection';
COMMENT ON FUNCTION cqrs_es.resume_projection(text, text) IS
    'replays the events that a paused projection has missed, and lets it follow appends again; returns how many events those were. Waits for open transactions that have appended. on_error: stop, or skip, which records events that fail in skipped_events';
REVOKE EXECUTE ON FUNCTION cqrs_es.resume_projection(text, text) FROM PUBLIC;

CREATE PROCEDURE cqrs_es.rebuild_in_portions(name text, portion integer DEFAULT 1000, on_error text DEFAULT 'stop')
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_rebuild_in_portions';
COMMENT ON PROCEDURE cqrs_es.rebuild_in_portions(text, integer, text) IS
    'rebuilds a projection, committing after each portion of so many events: pauses it, empties its read models, fills them, and resumes it unless it was paused before. Readers see the table being filled. What was interrupted goes on with resume_in_portions';
REVOKE EXECUTE ON PROCEDURE cqrs_es.rebuild_in_portions(text, integer, text) FROM PUBLIC;

CREATE PROCEDURE cqrs_es.resume_in_portions(name text, portion integer DEFAULT 1000, on_error text DEFAULT 'stop')
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_resume_in_portions';
COMMENT ON PROCEDURE cqrs_es.resume_in_portions(text, integer, text) IS
    'does what resume_projection does, committing after each portion of so many events';
REVOKE EXECUTE ON PROCEDURE cqrs_es.resume_in_portions(text, integer, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.retry_skipped(name text, OUT handled bigint, OUT failed bigint) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_retry_skipped';
COMMENT ON FUNCTION cqrs_es.retry_skipped(text) IS
    'lets a projection handle the events that were skipped (skipped_events), after all that it has handled meanwhile; returns how many it could, and how many fail still';
REVOKE EXECUTE ON FUNCTION cqrs_es.retry_skipped(text) FROM PUBLIC;
