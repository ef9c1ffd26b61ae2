-- 900_projection_status: every projection, how far it is, and what is wrong with it

-- The log by a function, which finds it by name: it may be another table by then.
CREATE VIEW cqrs_es.projection_status AS
    SELECT p.name,
           CASE (SELECT r.activity FROM cqrs_es.projection_progress AS r
                 WHERE r.projection OPERATOR(pg_catalog.=) p.name LIMIT 1)
               WHEN 'rebuild' THEN 'rebuilding'
               WHEN 'resume' THEN 'catching up'
               ELSE CASE WHEN p.paused AND p.rebuilt_to IS NOT NULL THEN 'partly rebuilt' WHEN p.paused THEN 'paused'
                    ELSE coalesce((SELECT 'stopped' FROM cqrs_es.subscriptions AS s
                        WHERE s.name OPERATOR(pg_catalog.=) f.name AND s.paused), 'live') END
           END AS state,
           p.mode,
           p.per_stream,
           p.aggregate_types,
           p.tags,
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
                WHEN p.mode OPERATOR(pg_catalog.=) 'sync' THEN cqrs_es.last_position()
                ELSE (SELECT x.position FROM cqrs_es.shares AS x WHERE x.subscription OPERATOR(pg_catalog.=) f.name)
           END AS last_position,
           CASE WHEN NOT p.paused AND p.mode OPERATOR(pg_catalog.=) 'async' THEN cqrs_es.subscription_lag_events(f.name) END AS lag_events,
           CASE WHEN NOT p.paused AND p.mode OPERATOR(pg_catalog.=) 'async' THEN cqrs_es.subscription_lag(f.name) END AS lag,
           CASE WHEN p.mode OPERATOR(pg_catalog.=) 'async' THEN
               (SELECT pg_catalog.count(*) FROM cqrs_es.parked_streams AS x
                WHERE x.subscription OPERATOR(pg_catalog.=) f.name) END AS parked,
           coalesce((SELECT s.last_error FROM cqrs_es.subscription_status AS s
                     WHERE s.name OPERATOR(pg_catalog.=) f.name),
               (SELECT pg_catalog.format('the session that ran it was lost in the middle of a batch, up to position %s: it is handed out in smaller ones', x.suspect_end)
                FROM cqrs_es.shares AS x WHERE x.subscription OPERATOR(pg_catalog.=) f.name
                AND x.suspect_end IS NOT NULL)) AS last_error,
           cqrs_es.projection_errors(p.name) AS errors,
           (SELECT pg_catalog.count(*) FROM cqrs_es.skipped_events AS e
            WHERE e.projection OPERATOR(pg_catalog.=) p.name) AS skipped,
           least(p.redacted_position, CASE WHEN p.paused OR p.mode OPERATOR(pg_catalog.=) 'async' THEN
               (SELECT pg_catalog.min(r.global_position) FROM cqrs_es.redactions AS r
                WHERE r.global_position OPERATOR(pg_catalog.>) CASE WHEN p.paused THEN p.handled_position
                    ELSE (SELECT x.position FROM cqrs_es.shares AS x WHERE x.subscription OPERATOR(pg_catalog.=) f.name) END
                AND (p.aggregate_types IS NULL OR r.aggregate_type OPERATOR(pg_catalog.=) ANY (p.aggregate_types)))
           END) AS redaction_missed
    FROM cqrs_es.projections AS p
    -- by itself, for a condition that calls concat() would not be looked up in subscription_status
    CROSS JOIN LATERAL (SELECT pg_catalog.concat('projection:', p.name) COLLATE "C" AS name OFFSET 0) AS f;
COMMENT ON VIEW cqrs_es.projection_status IS
    'every projection: is it live, whose events it handles, up to where, and what is wrong with it';
COMMENT ON COLUMN cqrs_es.projection_status.state IS
    'live, paused, partly rebuilt, rebuilding or catching up; an asynchronous one: stopped, since an event failed';
COMMENT ON COLUMN cqrs_es.projection_status.last_position IS
    'up to which position it has handled events, but for streams that are parked; a live one of mode sync has handled all there are';
COMMENT ON COLUMN cqrs_es.projection_status.lag_events IS
    'of an asynchronous one: events that it has not handled, counted up to 10,000; NULL also for who may not see it';
COMMENT ON COLUMN cqrs_es.projection_status.lag IS 'the age of the first of them';
COMMENT ON COLUMN cqrs_es.projection_status.parked IS
    'of an asynchronous one: streams that wait behind an event that failed; see subscription_parked_streams';
COMMENT ON COLUMN cqrs_es.projection_status.last_error IS
    'of an asynchronous one: of the event that failed last, for its owner; or that sessions die of one, which is looked for';
COMMENT ON COLUMN cqrs_es.projection_status.errors IS
    'what makes every event fail that it handles; see projection_errors()';
COMMENT ON COLUMN cqrs_es.projection_status.redaction_missed IS
    'position of the first event $redacted that it has not followed: what was erased may stand in its read models, until it has come there, or is rebuilt; NULL: none';
