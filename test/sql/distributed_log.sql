\i test/include/setup.sql
-- Tables that a distributed engine has taken over, of which it keeps rows in pg_dist_partition, and shards of such tables: nothing is
-- written to them, for it would be lost, or nothing would follow from it. What is there is read through SQL. (With Citus itself: 095_citus.)
BEGIN;
SELECT plan(21);
SET LOCAL cqrs_es.force_generic_path = off;
-- is there a plan of ours in this session for a statement that begins so?
CREATE FUNCTION pg_temp.by_statement(beginning text) RETURNS boolean LANGUAGE sql AS $$
	SELECT count(*) > 0 FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' AND ident LIKE beginning || '%'
$$;
CREATE FUNCTION pg_temp.append(tags text[] DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.state_of(format('SELECT cqrs_es.append_event(''distributed'', ''a'', ''e'', ''{}'', tags => %L)', tags))
$$;
-- what a shard looks like: a table of the same form, whose triggers have its number, too
CREATE TABLE cqrs_es.events_102008 (LIKE cqrs_es.events INCLUDING ALL);
CREATE TRIGGER admit_event_102008 BEFORE INSERT ON cqrs_es.events_102008 FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event();
CREATE TABLE cqrs_es.events_2024 (LIKE cqrs_es.events INCLUDING ALL);
CREATE TRIGGER admit_event BEFORE INSERT ON cqrs_es.events_2024 FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event();
CREATE TABLE cqrs_es.aggregates_102009 (LIKE cqrs_es.aggregates INCLUDING ALL);
CREATE TRIGGER registry_changed_102009 AFTER INSERT ON cqrs_es.aggregates_102009 FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
CREATE FUNCTION pg_temp.insert_into(relation text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.state_of(format('INSERT INTO cqrs_es.%I (aggregate_type, aggregate_id, event_type, payload) VALUES (''distributed'', ''b'', ''e'', ''{}'')', relation))
$$;

SELECT is(pg_temp.append(), 'none', 'an ordinary log takes an event');
SELECT is(pg_temp.insert_into('events_102008'), 'none', 'without such an engine a table may be called anything');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.aggregates_102009 SELECT * FROM cqrs_es.aggregates$$), 'none', 'a registry as well');

SET LOCAL allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass);
-- it tells sessions of what it does by an invalidation
ALTER TABLE cqrs_es.events ALTER COLUMN metadata SET STATISTICS 100;
SELECT is(pg_temp.append(), 'none', 'beside such an engine an ordinary log takes an event');
SELECT is(pg_temp.append('{t}'), 'none', 'with a tag, too');
SELECT is(pg_temp.by_statement('INSERT INTO cqrs_es.events'), false, 'straight');
SELECT is(pg_temp.insert_into('events'), 'none', 'and by INSERT');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('d', '{}')$$), 'none', 'and registries declarations');
SELECT is(pg_temp.insert_into('events_2024'), 'none', 'a table that has a number in its name alone is no shard');
SELECT is(pg_temp.insert_into('events_102008'), 'QE606', 'a shard of the log takes nothing');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events_102008 SELECT * FROM cqrs_es.events$$), 'QE606', 'no events that are restored either');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.aggregates_102009 SELECT * FROM cqrs_es.aggregates$$), 'QE606', 'nor does one of a registry');

INSERT INTO pg_catalog.pg_dist_partition VALUES ('cqrs_es.event_tags');
SET LOCAL client_min_messages = error;
ALTER TABLE cqrs_es.event_tags ALTER COLUMN tag SET STATISTICS 100;
RESET client_min_messages;
SELECT is(pg_temp.append(), 'none', 'where tags are distributed, an event without any is taken');
SELECT is(pg_temp.append('{t}'), 'QE606', 'and one with a tag is not');
SELECT is(pg_temp.insert_into('events'), 'none', 'nor does INSERT care');

INSERT INTO pg_catalog.pg_dist_partition VALUES ('cqrs_es.events');
ALTER TABLE cqrs_es.events ALTER COLUMN metadata SET STATISTICS 100;
SELECT is(pg_temp.append(), 'QE606', 'a distributed log takes nothing');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"aggregate_type": "distributed", "aggregate_id": "a", "type": "e", "payload": {}}]')$$), 'QE606', 'by no function');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('distributed', 'a')), 4::bigint, 'what is in it is read');
SELECT is(pg_temp.by_statement('SELECT global_position, sequence'), true, 'by a statement');
SELECT is(cqrs_es.stream_version('distributed', 'a'), 4::bigint, 'to its end');

INSERT INTO pg_catalog.pg_dist_partition VALUES ('cqrs_es.aggregates');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('e', '{}')$$), 'QE606', 'a distributed registry takes no declaration');
SELECT * FROM finish();
ROLLBACK;
