-- 780_projection_status: how far a replay is, and what is wrong with projections

-- STABLE, so that projection_status asks it only where its errors are asked for.
CREATE FUNCTION cqrs_es.projection_errors(name text) RETURNS text[]
    LANGUAGE C STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_projection_errors';
COMMENT ON FUNCTION cqrs_es.projection_errors(text) IS
    'what would make the handlers of a projection fail now, whatever the event; NULL: nothing, or nothing is known while their tables are locked';
REVOKE EXECUTE ON FUNCTION cqrs_es.projection_errors(text) FROM PUBLIC;

-- The server shows the details of a session's progress to those who may see its
-- statements. A replay reports like a COPY into cqrs_es.projections, with
-- the projection in the places from 17 on.
CREATE VIEW cqrs_es.projection_progress AS
    SELECT p.name AS projection,
           CASE s.param20 WHEN 1 THEN 'rebuild' ELSE 'resume' END AS activity,
           s.pid,
           s.param3 AS events,
           s.param18 AS position,
           s.param19 AS last_position,
           pg_catalog.round(100.0 OPERATOR(pg_catalog.*) s.param18 OPERATOR(pg_catalog./) NULLIF(s.param19, 0), 1) AS percent
    FROM pg_catalog.pg_stat_get_progress_info('COPY') AS s
    JOIN cqrs_es.projections AS p
        ON pg_catalog.hashtextextended(p.name, 0) OPERATOR(pg_catalog.=) s.param17
    WHERE s.relid OPERATOR(pg_catalog.=) 'cqrs_es.projections'::pg_catalog.regclass::pg_catalog.oid
      AND s.datid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
COMMENT ON VIEW cqrs_es.projection_progress IS
    'projections that are being rebuilt or resumed now: events replayed so far, where in the log, how far it goes, and what part of that is done';
