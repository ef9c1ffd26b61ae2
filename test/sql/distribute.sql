\i test/include/setup.sql
-- What distribute() makes of a node, as far as one server can show it: a trigger of the log that is marked, and what the engine
-- says of the log and of the node. (With Citus itself: 096_distribute.)
BEGIN;
SELECT plan(65);

SELECT is(pg_temp.state_of('SELECT cqrs_es.distribute()'), '0A000', 'without Citus: distribute');
SELECT is(pg_temp.state_of('SELECT cqrs_es.distribution_status()'), '55000', 'distribution_status');
SELECT is((SELECT count(*) FROM cqrs_es.home_of('a')), 0::bigint, 'home_of');
SELECT is(pg_temp.state_of('SELECT cqrs_es.admit_nodes()'), '55000', 'admit_nodes');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.on_all_nodes('SELECT 1')$$), '55000', 'on_all_nodes');
SELECT results_eq('SELECT * FROM cqrs_es.read_shards()', 'SELECT * FROM cqrs_es.read_page()', 'read_shards is read_page');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.distribute_read_model('pg_class', 'oid')$$), '55000', 'distribute_read_model');

SELECT cqrs_es.append_event('distributed', 'before', 'e', '{}') IS NULL AS x \gset
SET LOCAL client_min_messages = error;
SET LOCAL allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_local_group (groupid int);
INSERT INTO pg_catalog.pg_dist_local_group VALUES (5);
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, colocationid int);
INSERT INTO pg_catalog.pg_dist_partition VALUES ('cqrs_es.events', 4);
DROP TRIGGER admit_event ON cqrs_es.events;
CREATE TRIGGER admit_event BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event('distributed');
RESET client_min_messages;

-- What admit_nodes() does to each node, whose last_declaration is changed with that of all others.
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('distributed', 'a', 'e', '{}')$$, '{state,message}'), ARRAY['QE609', 'node 5 has not been admitted to the distributed log'],
	'a node takes nothing before it knows what is declared');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('distributed', 'a', 'e', '{}')$$), 'QE609', 'by INSERT neither');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.on_all_nodes('SELECT 1')$$), '55000', 'nor a declaration without the row that all nodes have');
INSERT INTO cqrs_es.last_declaration VALUES (0, false, '', '', '');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.on_all_nodes('SELECT 1')$$), 'QE609', 'nor with it');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('received', '{}')$$), 'QE608', 'nor one of its own');
UPDATE cqrs_es.last_declaration SET admits = true, role_name = current_user, search_path = 'pg_catalog',
	statement = $$SELECT cqrs_es.receive_declarations('{"aggregates": [{"aggregate_type": "received", "initial_state": {}, "snapshot_every": 0, "keep_snapshots": 1, "strict": false, "created_at": "2026-01-01"}],
		"commands": [{"aggregate_type": "received", "command_type": "c", "decider": "''[]''::jsonb", "definer": null, "definer_name": "postgres", "search_path": ""}]}')$$;
SELECT is(cqrs_es.declarations_here(true) -> 'aggregates', '[{"aggregate_type": "received", "initial_state": {}, "snapshot_every": 0, "keep_snapshots": 1, "strict": false, "created_at": "2026-01-01T00:00:00+00:00"}]', 'then it knows');
SELECT is(cqrs_es.declarations_here(false) #>> '{commands,0,definer_name}', 'postgres', 'roles by their names');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_aggregate('alone', '{}')$$, '{state,message}'), ARRAY['QE608', 'in a distributed log nothing is declared on one node alone'], 'one node declares nothing');
SELECT lives_ok($$SELECT cqrs_es.on_all_nodes('SELECT cqrs_es.create_aggregate(''everywhere'', ''{}''); SELECT cqrs_es.define_reducer(''everywhere'', ''e'', ''[]'')')$$, 'all of them do');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.on_all_nodes('SELECT cqrs_es.create_aggregate(''everywhere'', ''{}''); SELECT 1/0')$$), '22012', 'an error is that of the statement');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('alone', '{}')$$), 'QE608', 'after which one node still declares nothing');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.on_all_nodes('SELECT cqrs_es.create_subscription(''s'')')$$), 'QE608', 'what is not for such a log is not for all nodes either');
SELECT is(pg_temp.state_of($$UPDATE cqrs_es.last_declaration SET role_name = 'pg_monitor', statement = 'SELECT 1'$$), '42501', 'what another role has declared is not run');

-- Projections are of tables that are distributed along with the log.
CREATE TABLE public.along (id text COLLATE "C" PRIMARY KEY, n int);
CREATE TABLE public.otherwise (id text COLLATE "C" PRIMARY KEY, n int);
INSERT INTO pg_catalog.pg_dist_partition VALUES ('public.along', 4), ('public.otherwise', 5);
CREATE FUNCTION pg_temp.project(arguments text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.state_of(format('SELECT cqrs_es.on_all_nodes(%L)', format('SELECT cqrs_es.create_projection(''along'', ''{projected}'', %s)', arguments)))
$$;
SELECT is(pg_temp.project(arguments), 'QE608', arguments) FROM (VALUES ($$'{otherwise}'$$), ($$'{along,otherwise}'$$), ('NULL'), ($$'{along}', mode => 'async'$$),
	($$'{along}', backfill => true$$), ($$'{along}', tags => '{t}'$$)) AS refused (arguments);
SELECT is(pg_temp.project($$'{along}'$$), 'none', 'a table that is distributed along with the log');
SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.define_handler('along', '*', 'INSERT INTO along VALUES (event.aggregate_id, event.sequence)')$$) IS NULL AS x \gset
SELECT is((SELECT version FROM cqrs_es.append_event('projected', 'a', 'e', '{}')), 1::bigint, 'an event that it is for');
SELECT is(along, '(a,1)', 'it has handled it') FROM along;
SELECT is(cqrs_es.declarations_here(false) #>> '{projections,0,read_model_names}', '[["public", "along"]]', 'other nodes are told the names of tables');
SELECT is(pg_temp.state_of('SELECT cqrs_es.' || call), 'QE608', call) FROM (VALUES ($$rebuild_projection('along')$$), ($$pause_projection('along')$$), ($$alter_projection('along')$$)) AS refused (call);
SET LOCAL session_replication_role = replica;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.on_all_nodes('SELECT 1')$$), '55000', 'nor where no trigger is fired');
RESET session_replication_role;

SELECT is(global_position >> 44, 5::bigint, 'the node''s number is that of the engine') FROM cqrs_es.append_event('distributed', 'a', 'e', '{}');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('distributed', 'a', 'e', '{}', 0)$$), 'QE001', 'appends keep the rules');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence) VALUES ('distributed', 'a', 'e', '{}', 99)$$), 'QE003', 'INSERT as well');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('distributed', 'a', 'e', '{}')$$), 'none', 'it takes one that does');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence, global_position) VALUES ('distributed', 'a', 'e', '{}', 3, 7)$$), 'QE607',
	'a position that this session has not drawn');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence, global_position) VALUES ('distributed', 'a', 'e', '{}', 3, (5::bigint << 44) + 1000000)$$), 'QE607',
	'also one with its number');
SELECT is(pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence, global_position) VALUES ('distributed', 'a', 'e', '{}', 3, 7)$$, '{message}'), ARRAY['stream "distributed/a" is stored on another node'],
	'the error names the stream');

-- What it draws is above what it has drawn, though it does not look into the log.
SELECT cmp_ok(max(global_position), '<', (SELECT global_position FROM cqrs_es.append_event('distributed', 'a', 'e', '{}')), 'positions rise')
	FROM cqrs_es.events WHERE aggregate_type = 'distributed';

-- The whole log is read in portions, of which one ends just with the log.
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'distributed', (n % 7)::text, 'e', '{}' FROM generate_series(1, 2996) AS n;
SELECT results_eq($$SELECT count(*), count(DISTINCT global_position) FROM cqrs_es.events WHERE aggregate_type = 'distributed'$$, 'VALUES (3000::bigint, 3000::bigint)', '3000 events');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE global_position >> 44 = 5), 3000::bigint, 'all but one of this node');
SELECT is(cqrs_es.settled_position(), 0::bigint, 'none of which is settled before its transaction ends');

SELECT is(pg_temp.state_of(statement), 'QE608', description) FROM (VALUES
	($$SELECT cqrs_es.create_aggregate('a', '{}')$$, 'create_aggregate'),
	($$SELECT cqrs_es.create_projection('p', '{t}')$$, 'create_projection'),
	($$SELECT cqrs_es.create_subscription('s')$$, 'create_subscription'),
	($$SELECT cqrs_es.define_tags('t', 'x')$$, 'define_tags'),
	($$SELECT cqrs_es.append_event('distributed', 'a', 'e', '{}', tags => '{t}')$$, 'tags'),
	($$SELECT cqrs_es.append_to_streams('[{"aggregate_type": "distributed", "aggregate_id": "a", "type": "e", "payload": {}}]', '[{"types": ["x"]}]')$$, 'a condition'),
	($$SELECT cqrs_es.import_events('cqrs_es.events')$$, 'import_events'),
	($$SELECT cqrs_es.receive_message('s', 'm')$$, 'receive_message'),
	($$SELECT cqrs_es.after_failover()$$, 'after_failover')
	) AS refused (statement, description);
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('distributed', '3')), 428::bigint, 'a stream');

-- On the coordinator: of a node that has left nothing comes any more, so its events are read over all gaps, however old the snapshot.
SELECT is(pg_temp.state_of('SELECT cqrs_es.read_shards()'), '55000', 'read_shards is for the coordinator');
SELECT is(pg_temp.state_of('SELECT cqrs_es.read_all(6::bigint << 44)'), '22023', 'a node does not know which of others have left');
SET LOCAL client_min_messages = error;
CREATE TABLE pg_catalog.pg_dist_node (groupid int);
INSERT INTO pg_catalog.pg_dist_node VALUES (0), (6);
UPDATE pg_catalog.pg_dist_local_group SET groupid = 0;
ALTER TABLE cqrs_es.events SET (fillfactor = 100);
RESET client_min_messages;
SELECT is(pg_temp.state_of('SELECT cqrs_es.read_all(6::bigint << 44)'), '22023', 'one that is there is asked itself');
SELECT is((SELECT count(*) FROM cqrs_es.read_all(5::bigint << 44, 5000)), 3000::bigint, 'one that has left is read to its end');
SELECT is((SELECT count(*) FROM cqrs_es.read_all(7::bigint << 44)), 0::bigint, 'one that has never been has nothing');
SELECT results_eq($$SELECT read_to FROM cqrs_es.read_page(7::bigint << 44)$$, 'VALUES (7::bigint << 44)', 'and its reader stays where it is');
SELECT results_eq($$SELECT count(*), min(global_position >> 44), max(read_to >> 44) FROM cqrs_es.read_page(5::bigint << 44, 10, '{distributed}')$$, 'VALUES (10::bigint, 5::bigint, 5::bigint)', 'with a filter, a page');
INSERT INTO pg_catalog.pg_dist_node VALUES (5);
SELECT is(pg_temp.state_of('SELECT cqrs_es.read_all(5::bigint << 44)'), '22023', 'as of now');

SELECT is(cqrs_es.merge_positions(ARRAY[(5::bigint << 44) + 7, 3], ARRAY[(5::bigint << 44) + 9, NULL, 2, (6::bigint << 44)]), ARRAY[3, (5::bigint << 44) + 9, 6::bigint << 44], 'positions of several nodes: the last of each');
SELECT is(cqrs_es.merge_positions('{}', NULL), '{}'::bigint[], 'none');
SELECT * FROM finish();
ROLLBACK;
