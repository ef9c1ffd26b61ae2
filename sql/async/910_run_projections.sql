-- 910_run_projections: asynchronous projections are run, and waited for

CREATE PROCEDURE cqrs_es.run_projections(
    projections   text[] DEFAULT NULL,
    timeout       interval DEFAULT '0',
    INOUT handled bigint DEFAULT NULL
)
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_run_projections';
COMMENT ON PROCEDURE cqrs_es.run_projections(text[], interval, bigint) IS
    'runs asynchronous projections (NULL: all): handles what is there, and until timeout is over what comes (NULL: without end). Several may run at once; each projection is run by one. Shows nothing of the events to who calls it';
REVOKE EXECUTE ON PROCEDURE cqrs_es.run_projections(text[], interval, bigint) FROM PUBLIC;

CREATE PROCEDURE cqrs_es.wait_for_projection(
    name            text,
    global_position bigint,
    timeout         interval DEFAULT '10 seconds',
    INOUT reached   boolean DEFAULT NULL
)
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_wait_for_projection';
COMMENT ON PROCEDURE cqrs_es.wait_for_projection(text, bigint, interval, boolean) IS
    'waits until a projection has handled what is committed up to a position, one''s own last write for instance; false when the time is over before';
