-- 470_import: history of other systems

CREATE FUNCTION cqrs_es.import_events(
    source            regclass,
    OUT streams       bigint,
    OUT imported      bigint,
    OUT already_there bigint,
    OUT last_position bigint
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_import_events';
COMMENT ON FUNCTION cqrs_es.import_events(regclass) IS
    'appends the rows of a table or view as events, with their times, ids and order, and checks that all are there; those that are there already are passed over';
REVOKE EXECUTE ON FUNCTION cqrs_es.import_events(regclass) FROM PUBLIC;
