\i test/include/setup.sql
-- A log that a distributed engine has taken over, of which it keeps a row in pg_dist_partition: everything goes through
-- SQL, for what is inserted straight would be lost.
BEGIN;
SELECT plan(7);
SET LOCAL cqrs_es.force_generic_path = off;
-- is there a plan of ours for such a statement in this session?
CREATE FUNCTION pg_temp.by_statement() RETURNS boolean LANGUAGE sql AS $$
	SELECT count(*) > 0 FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' AND ident LIKE 'INSERT INTO cqrs_es.events%'
$$;
SELECT cqrs_es.append_event('distributed', 'a', 'e', '{}') IS NULL AS x \gset
SELECT is(pg_temp.by_statement(), false, 'an ordinary log is written straight');

SET LOCAL allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass);
SELECT cqrs_es.append_event('distributed', 'a', 'e', '{}') IS NULL AS x \gset
SELECT is(pg_temp.by_statement(), false, 'beside such an engine, too');
INSERT INTO pg_catalog.pg_dist_partition VALUES ('cqrs_es.events');
ALTER TABLE cqrs_es.events ALTER COLUMN metadata SET STATISTICS 100;
SELECT is((cqrs_es.append_event('distributed', 'a', 'e', '{}')).version, 3::bigint, 'a log that it has taken over');
SELECT is(pg_temp.by_statement(), true, 'is written by a statement');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('distributed', 'a')), 3::bigint, 'and read');
SELECT is(cqrs_es.stream_version('distributed', 'a'), 3::bigint, 'to its end');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('distributed', 'a', 'e', '{}', 1)$$), 'QE001', 'by the same rules');
SELECT * FROM finish();
ROLLBACK;
