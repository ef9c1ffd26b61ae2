-- 988_grants: who may do what, right after CREATE EXTENSION, whatever default
-- privileges there are: they may take from PUBLIC what everybody needs, or give
-- somebody a registry, whose rows say what runs with whose rights.

DO $$
DECLARE
    owner  pg_catalog.oid := (SELECT n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) 'cqrs_es');
    schema pg_catalog.oid := 'cqrs_es'::pg_catalog.regnamespace;
    given  record;
BEGIN
    FOR given IN
        SELECT DISTINCT o.kind, o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END AS grantee
        FROM (
            SELECT 'SCHEMA' AS kind, 'cqrs_es' AS name, n.nspacl AS acl
            FROM pg_catalog.pg_namespace AS n WHERE n.oid OPERATOR(pg_catalog.=) schema
            UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass::pg_catalog.text, c.relacl
            FROM pg_catalog.pg_class AS c WHERE c.relnamespace OPERATOR(pg_catalog.=) schema AND c.relkind IN ('r', 'v', 'S')
            UNION ALL SELECT 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text,
                coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
            FROM pg_catalog.pg_proc AS p WHERE p.pronamespace OPERATOR(pg_catalog.=) schema
        ) AS o, pg_catalog.aclexplode(o.acl) AS a
        WHERE a.grantee OPERATOR(pg_catalog.<>) owner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', given.kind, given.name, given.grantee);
    END LOOP;
END $$;

-- these ask for rights on the log themselves, or need none
GRANT EXECUTE ON FUNCTION cqrs_es.append_event, cqrs_es.append_events, cqrs_es.append_event_arrays, cqrs_es.append_to_streams,
    cqrs_es.try_append_event, cqrs_es.try_append_events, cqrs_es.try_append_event_arrays, cqrs_es.new_event_id, cqrs_es.next_position,
    cqrs_es.read_stream, cqrs_es.read_all, cqrs_es.read_page, cqrs_es.read_matching, cqrs_es.stream_version,
    cqrs_es.settled_position, cqrs_es.wait_for_position, cqrs_es.log_id, cqrs_es.current_tenant,
    cqrs_es.aggregate_state, cqrs_es.load_aggregate, cqrs_es.replay, cqrs_es.take_snapshot,
    cqrs_es.execute_command, cqrs_es.try_execute_command, cqrs_es.reject, cqrs_es.execute_boundary, cqrs_es.boundary_state, cqrs_es.boundary_query, cqrs_es.derived_tags, cqrs_es.id_from_text, cqrs_es.event_types, cqrs_es.poisoned_streams,
    cqrs_es.receive_events, cqrs_es.ack_events, cqrs_es.nack_event, cqrs_es.extend_lease, cqrs_es.release_batch,
    cqrs_es.receive_message, cqrs_es.routed_stream, cqrs_es.routed_argument, cqrs_es.position_here, cqrs_es.stream_hash, cqrs_es.home_of,
    cqrs_es.read_shards, cqrs_es.merge_positions
    TO PUBLIC;
-- these show each role what concerns it
GRANT EXECUTE ON FUNCTION cqrs_es.sees_subscription, cqrs_es.subscription_lag_events, cqrs_es.subscription_lag, cqrs_es.subscription_obstacle, cqrs_es.subscription_seen
    TO PUBLIC;
GRANT SELECT ON cqrs_es.subscription_status, cqrs_es.subscription_consumers, cqrs_es.subscription_dead_letters, cqrs_es.subscription_parked_streams
    TO PUBLIC;
GRANT EXECUTE ON PROCEDURE cqrs_es.wait_for_events, cqrs_es.wait_until_settled, cqrs_es.wait_for_projection TO PUBLIC;
GRANT USAGE ON TYPE cqrs_es.event, cqrs_es.append_result, cqrs_es.append_outcome TO PUBLIC;
-- these show monitors how everything is, and nothing of what is in events
GRANT USAGE ON SCHEMA cqrs_es TO pg_monitor;
GRANT SELECT ON cqrs_es.log_status, cqrs_es.log_partitions, cqrs_es.unsettled_transactions, cqrs_es.counters, cqrs_es.projection_status, cqrs_es.projection_progress,
    cqrs_es.missing_objects, cqrs_es.tag_definitions, cqrs_es.log_followers, cqrs_es.followed_log_status
    TO pg_monitor;
GRANT EXECUTE ON FUNCTION cqrs_es.last_position, cqrs_es.known_settled_position, cqrs_es.log_size, cqrs_es.projection_errors
    TO pg_monitor;
