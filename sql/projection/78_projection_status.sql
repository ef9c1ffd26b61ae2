-- 78_projection_status: how far projections are, and what is wrong with them

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

-- The log by a function, which finds it by name: it may be another table by then.
CREATE VIEW cqrs_es.projection_status AS
    SELECT p.name,
           CASE (SELECT r.activity FROM cqrs_es.projection_progress AS r
                 WHERE r.projection OPERATOR(pg_catalog.=) p.name LIMIT 1)
               WHEN 'rebuild' THEN 'rebuilding'
               WHEN 'resume' THEN 'catching up'
               ELSE CASE WHEN p.rebuilt_to IS NOT NULL THEN 'partly rebuilt' WHEN p.paused THEN 'paused' ELSE 'live' END
           END AS state,
           p.aggregate_types,
           p.state_of,
           -- what was missing when it was restored, or is gone, is there when its name is
           CASE WHEN p.read_model_names IS NOT NULL THEN
               ARRAY(SELECT coalesce(t.oid, o.oid, 0)::pg_catalog.regclass
                     FROM pg_catalog.generate_subscripts(p.read_model_names, 1) AS i
                     LEFT JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) p.read_models[i]
                     LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname OPERATOR(pg_catalog.=) p.read_model_names[i][1]
                     LEFT JOIN pg_catalog.pg_class AS o ON o.relnamespace OPERATOR(pg_catalog.=) n.oid
                         AND o.relname OPERATOR(pg_catalog.=) p.read_model_names[i][2]
                         AND o.relkind IN ('r', 'p') AND o.relpersistence OPERATOR(pg_catalog.<>) 't'
                     ORDER BY i)
           END AS read_models,
           coalesce(p.owner, (SELECT r.oid FROM pg_catalog.pg_roles AS r
               WHERE r.rolname OPERATOR(pg_catalog.=) p.owner_name))::pg_catalog.regrole AS owner,
           ARRAY(SELECT h.event_type FROM cqrs_es.handlers AS h
                 WHERE h.projection OPERATOR(pg_catalog.=) p.name ORDER BY h.event_type) AS handlers,
           CASE WHEN p.paused THEN p.handled_position
                ELSE cqrs_es.last_position()
           END AS last_position,
           cqrs_es.projection_errors(p.name) AS errors,
           (SELECT pg_catalog.count(*) FROM cqrs_es.skipped_events AS e
            WHERE e.projection OPERATOR(pg_catalog.=) p.name) AS skipped
    FROM cqrs_es.projections AS p;
COMMENT ON VIEW cqrs_es.projection_status IS
    'every projection: is it live, whose events it handles, up to where, and what is wrong with it';
COMMENT ON COLUMN cqrs_es.projection_status.last_position IS
    'up to which position it has handled events; a live one has handled all there are';
COMMENT ON COLUMN cqrs_es.projection_status.errors IS
    'what makes every append fail that it handles; see projection_errors()';
