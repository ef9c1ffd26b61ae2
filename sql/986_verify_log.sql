-- 986_verify_log: is a log whole, after a restore for instance?
-- It finds the log by name, which may be another table by then.

CREATE FUNCTION cqrs_es.verify_log() RETURNS TABLE (item text, found bigint, problem text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    AS $$
    WITH log AS (
        SELECT count(*) AS events,
               count(*) FILTER (WHERE e.before IS NULL) AS streams,
               max(e.global_position) AS last_position,
               max(e.global_position & 17592186044415) FILTER (WHERE e.global_position >> 44
                   = coalesce(nullif(current_setting('cqrs_es.node_id', true), '')::bigint, 0)) AS last_number,
               count(*) FILTER (WHERE e.is_hole) AS holes,
               min(concat(e.aggregate_type, '/', e.aggregate_id)) FILTER (WHERE e.is_hole) AS hole,
               count(*) FILTER (WHERE e.global_position <= e.position_before) AS falls,
               min(concat(e.aggregate_type, '/', e.aggregate_id)) FILTER (WHERE e.global_position <= e.position_before) AS fall
        -- a stream may be continued at another node, of whose positions nobody makes one order
        FROM (SELECT s.*, s.sequence <> coalesce(s.before, 0) + 1
                  -- what is gone in front of it was removed by delete_stream
                  AND NOT (s.before IS NULL AND s.event_type = '$deleted') AS is_hole
              FROM (SELECT s.*, lag(s.sequence) OVER stream AS before, lag(s.global_position) OVER of_node AS position_before
              FROM cqrs_es.events AS s
              WINDOW stream AS (PARTITION BY s.aggregate_type, s.aggregate_id, s.tenant_id ORDER BY s.sequence),
                  of_node AS (PARTITION BY s.aggregate_type, s.aggregate_id, s.tenant_id, s.global_position >> 44 ORDER BY s.sequence)) AS s) AS e
    ), ties AS (
        SELECT coalesce(sum(t.n - 1), 0) AS n, min(t.global_position) AS first
        FROM (SELECT s.global_position, count(*) AS n FROM cqrs_es.events AS s GROUP BY 1 HAVING count(*) > 1) AS t
    ), drawn AS (
        SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END AS n FROM cqrs_es.events_global_position_seq AS q
    ), ahead AS (
        SELECT count(*) AS n, min(concat(a.aggregate_type, '/', a.aggregate_id)) AS stream
        FROM cqrs_es.snapshots AS a
        WHERE a.last_sequence > 0 AND NOT EXISTS (SELECT FROM cqrs_es.events AS e
            WHERE (e.aggregate_type, e.aggregate_id, e.tenant_id, e.sequence)
                = (a.aggregate_type, a.aggregate_id, a.tenant_id, a.last_sequence))
    ), ahead_of_boundaries AS (
        -- each is of events up to one that is in the log
        SELECT count(*) AS n, min(b.boundary) AS boundary
        FROM cqrs_es.boundary_snapshots AS b
        WHERE b.last_position > 0 AND NOT EXISTS (SELECT FROM cqrs_es.events AS e
            WHERE (e.global_position, e.tenant_id) = (b.last_position, b.tenant_id))
    ), untagged AS (
        -- of types whose definition says that all have them
        SELECT count(*) AS n, min(e.global_position) AS first
        FROM cqrs_es.events AS e
        JOIN cqrs_es.tag_definitions AS d ON d.event_type = e.event_type AND d.is_complete AND d.templates <> '{}'
        LEFT JOIN (SELECT t.global_position, t.tenant_id, t.event_type, array_agg(t.tag) AS tags
            FROM cqrs_es.event_tags AS t GROUP BY 1, 2, 3) AS w
            ON (w.global_position, w.tenant_id, w.event_type) = (e.global_position, e.tenant_id, e.event_type)
        WHERE (cqrs_es.derived_tags(e.payload, VARIADIC d.templates) <@ coalesce(w.tags, '{}')) IS NOT TRUE
    ), tags AS (
        SELECT (SELECT count(*) FROM cqrs_es.event_tags) AS n, count(*) AS lost, min(t.global_position) AS first
        FROM cqrs_es.event_tags AS t
        WHERE NOT EXISTS (SELECT FROM cqrs_es.events AS e
            WHERE (e.global_position, e.tenant_id, e.event_type) = (t.global_position, t.tenant_id, t.event_type))
    ), guards AS (
        SELECT count(*) AS n
        FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid
        WHERE g.tgrelid = 'cqrs_es.events'::regclass AND g.tgenabled IN ('O', 'A') AND f.pronamespace = 'cqrs_es'::regnamespace
    ), tellers AS (
        -- what tells sessions that what they have cached is old has to, whatever is restored or applied
        -- (those for rows are for rows that are received, where those for statements are not fired)
        SELECT count(*) FILTER (WHERE g.tgenabled = 'A') AS n,
               min(format('%s of %s', g.tgname, g.tgrelid::regclass)) FILTER (WHERE g.tgenabled <> 'A' AND (g.tgtype & 1 = 0 OR g.tgenabled <> 'R')) AS weak
        FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid
        WHERE f.pronamespace = 'cqrs_es'::regnamespace AND f.proname IN ('registry_changed', 'resolve_names', 'snapshots_deleted')
    ), partitions AS (
        SELECT count(*) AS n, count(p.from_position) AS by_position,
               count(*) FILTER (WHERE p.state = 'ahead') AS ahead,
               max(p.to_position) AS up_to,
               min(p.partition::text) FILTER (WHERE NOT EXISTS (SELECT FROM pg_trigger AS g
                   WHERE g.tgrelid = p.partition AND g.tgfoid = 'cqrs_es.refuse_change()'::regprocedure AND g.tgtype & 32 > 0
                   AND g.tgenabled IN ('O', 'A'))) AS unguarded
        FROM cqrs_es.log_partitions AS p JOIN pg_class AS c ON c.oid = p.partition
    ), keys AS (
        -- of a log by position each partition has one
        SELECT count(DISTINCT i.indrelid) AS n, CASE WHEN t.by_position > 0 THEN t.n ELSE 1 END AS wanted
        FROM partitions AS t LEFT JOIN pg_index AS i ON true
        AND (i.indrelid = 'cqrs_es.events'::regclass AND t.by_position = 0
            OR t.by_position > 0 AND i.indrelid IN (SELECT p.partition FROM cqrs_es.log_partitions AS p))
        AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indnkeyatts = 4
        AND 'sequence' = (SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[3])
        AND 3 = (SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = i.indrelid
            AND a.attnum IN (i.indkey[0], i.indkey[1], i.indkey[2]) AND a.attname IN ('aggregate_type', 'aggregate_id', 'tenant_id'))
        GROUP BY t.by_position, t.n
    ), shared AS (
        -- tables in which tenants are not kept apart
        SELECT count(*) AS n, min(t.relname) AS first
        FROM pg_class AS t
        WHERE (t.oid = 'cqrs_es.events'::regclass OR t.relkind = 'r' AND EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                WHERE d.classid = 'pg_class'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass
                AND d.deptype = 'e' AND e.extname = 'cqrs_es'))
        AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = t.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
        AND NOT (t.relrowsecurity AND EXISTS (SELECT FROM pg_policy AS p
            WHERE p.polrelid = t.oid AND pg_get_expr(p.polqual, p.polrelid) LIKE '%current_tenant()%'))
    ), own AS (
        -- where no event trigger saw how they came
        SELECT count(*) AS n
        FROM (SELECT attname, atttypid FROM pg_attribute WHERE attrelid = 'cqrs_es.events'::regclass AND attnum > 0 AND NOT attisdropped) AS t
        FULL JOIN (SELECT attname, atttypid FROM pg_attribute WHERE attrelid = 'cqrs_es.event'::regclass AND NOT attisdropped) AS e
            USING (attname, atttypid)
        WHERE (t IS NULL OR e IS NULL) AND EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = 'cqrs_es.events'::regclass AND d.deptype = 'e')
    ), anew AS (
        SELECT count(*) AS n, min(p.name) AS projection
        FROM cqrs_es.projections AS p, generate_subscripts(p.read_models, 1) AS i
        WHERE p.read_models[i] <> 0::oid AND NOT EXISTS (SELECT FROM pg_class AS t WHERE t.oid = p.read_models[i])
        AND EXISTS (SELECT FROM pg_class AS t JOIN pg_namespace AS s ON s.oid = t.relnamespace
            WHERE (s.nspname, t.relname) = (p.read_model_names[i][1]::name, p.read_model_names[i][2]::name))
    ), missing AS (
        SELECT count(*) AS n FROM cqrs_es.missing_objects
    )
    SELECT 'events', l.events, CASE WHEN l.events = 0 AND d.n > 0
        THEN format('the log is empty, but positions up to %s were drawn: have the events of the dump been refused?', d.n) END FROM log AS l, drawn AS d
    UNION ALL SELECT 'streams', l.streams, NULL FROM log AS l
    UNION ALL SELECT 'last position', l.last_position, NULL FROM log AS l
    UNION ALL SELECT 'holes in streams', l.holes, CASE WHEN l.holes > 0
        THEN format('events are missing, in stream "%s" for instance', l.hole) END FROM log AS l
    UNION ALL SELECT 'positions that fall within a stream', l.falls, CASE WHEN l.falls > 0
        THEN format('readers get a later event first, in stream "%s" for instance', l.fall) END FROM log AS l
    UNION ALL SELECT 'events with a position of others', t.n, CASE WHEN t.n > 0
        THEN format('two events share a position, %s for instance', t.first) END FROM ties AS t
    UNION ALL SELECT 'tags', t.n, CASE WHEN t.lost > 0
        THEN format('%s are of events that are not there, at position %s for instance', t.lost, t.first) END FROM tags AS t
    UNION ALL SELECT 'events without tags that are defined', u.n, CASE WHEN u.n > 0
        THEN format('decisions overlook them, that at position %s for instance', u.first) END FROM untagged AS u
    UNION ALL SELECT 'last position drawn', d.n, CASE WHEN d.n < l.last_number
        THEN 'the sequence is behind the log; positions are drawn above it nevertheless' END FROM log AS l, drawn AS d
    UNION ALL SELECT 'snapshots of events that are not there', a.n, CASE WHEN a.n > 0
        THEN format('events are missing, at the end of stream "%s" for instance', a.stream) END FROM ahead AS a
    UNION ALL SELECT 'snapshots of boundaries beyond their events', a.n, CASE WHEN a.n > 0
        THEN format('the last event of the state is missing, of boundary "%s" for instance', a.boundary) END FROM ahead_of_boundaries AS a
    UNION ALL SELECT 'guards of the log', g.n, CASE WHEN g.n < 5
        THEN 'triggers of cqrs_es.events are missing or disabled' END FROM guards AS g
    UNION ALL SELECT 'triggers that fire always', t.n, CASE WHEN t.weak IS NOT NULL
        THEN format('sessions do not hear of every change: ENABLE ALWAYS TRIGGER %s, for instance', t.weak) END FROM tellers AS t
    UNION ALL SELECT 'partitions', p.n, CASE WHEN p.by_position > 0 AND p.ahead = 0
        THEN format('there is no room for positions from %s on, and soon nothing can be appended: call keep_partitions()', p.up_to)
        WHEN p.unguarded IS NOT NULL
        THEN format('nothing refuses TRUNCATE of %s for instance: call complete_partition()', p.unguarded) END FROM partitions AS p
    UNION ALL SELECT 'unique indexes of streams', k.n, CASE WHEN k.n < k.wanted AND k.wanted > 1
        THEN 'partitions lack one, and nothing is written to them: call complete_partition()' WHEN k.n < k.wanted
        THEN 'nothing keeps two events from getting one sequence, so nothing is written' END FROM keys AS k
    UNION ALL SELECT 'tables without the policy of tenants', s.n, CASE WHEN s.n > 0
        THEN format('ordinary roles see all tenants, or none, in cqrs_es.%s for instance', s.first) END FROM shared AS s
    UNION ALL SELECT 'columns that no dump has', o.n, CASE WHEN o.n > 0
        THEN 'rows of a dump would not fit where it is restored: call own_log()' END FROM own AS o
    UNION ALL SELECT 'read models made anew', a.n, CASE WHEN a.n > 0
        THEN format('what they show may not be of this log: rebuild_projection(%L)', a.projection) END FROM anew AS a
    UNION ALL SELECT 'missing objects', m.n, CASE WHEN m.n > 0
        THEN 'declarations name what is not there: see cqrs_es.missing_objects' END FROM missing AS m
    $$;
COMMENT ON FUNCTION cqrs_es.verify_log() IS
    'looks through the whole log, after a restore for instance: how many events, streams and so on, to compare with where it comes from, and what is wrong with it; problem NULL: nothing';
REVOKE EXECUTE ON FUNCTION cqrs_es.verify_log() FROM PUBLIC;
