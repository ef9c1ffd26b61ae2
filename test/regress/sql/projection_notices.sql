-- Rebuild, pause and resume: what a person sees of them.
BEGIN;
CREATE TABLE rb_many (position bigint);
SELECT cqrs_es.create_projection('rb many', '{rb many}', '{rb_many}', backfill => true);
SELECT cqrs_es.define_handler('rb many', 'a', 'INSERT INTO rb_many VALUES (event.global_position)');
SELECT version FROM cqrs_es.append_events('rb many', '1', '[{"type": "a", "payload": 1}, {"type": "a", "payload": 2}]');
SELECT cqrs_es.resume_projection('rb many');
SELECT cqrs_es.resume_projection('rb many');
SELECT cqrs_es.pause_projection('rb many');
SELECT cqrs_es.pause_projection('rb many');
SELECT cqrs_es.rebuild_projection('rb many');

-- rows that were put in by hand, and a function
CREATE TABLE rb_seeded (id text PRIMARY KEY, n integer NOT NULL);
INSERT INTO rb_seeded VALUES ('1', 0);
SELECT cqrs_es.create_projection('rb seeded', '{rb many}', '{rb_seeded}');
SELECT cqrs_es.define_handler('rb seeded', 'b', 'UPDATE rb_seeded SET n = n + 1 WHERE id = event.aggregate_id');
SELECT version FROM cqrs_es.append_event('rb many', '1', 'b', '{}');
SELECT * FROM rb_seeded;
SELECT cqrs_es.rebuild_projection('rb seeded');
SELECT * FROM rb_seeded;

-- what may rightly find nothing is no warning: to insert, to delete, to write elsewhere
CREATE TABLE rb_other (id text PRIMARY KEY);
SELECT cqrs_es.define_handler('rb seeded', 'b', statement), cqrs_es.rebuild_projection('rb seeded') IS NULL AS x
FROM (VALUES (1, $$DELETE FROM rb_seeded WHERE id = event.aggregate_id$$),
	(2, $$INSERT INTO rb_seeded SELECT 'x', 1 WHERE false ON CONFLICT DO NOTHING$$),
	(3, $$INSERT INTO rb_seeded SELECT 'x', 1 WHERE false ON CONFLICT (id) DO UPDATE SET n = 0$$),
	(4, $$MERGE INTO rb_seeded AS r USING (SELECT event.aggregate_id AS id) AS e ON r.id = e.id WHEN MATCHED THEN DELETE$$),
	(5, $$MERGE INTO rb_seeded AS r USING (SELECT event.aggregate_id AS id) AS e ON r.id = e.id AND false WHEN NOT MATCHED AND false THEN INSERT VALUES ('y', 1)$$),
	(6, $$WITH x AS (INSERT INTO rb_other VALUES (event.event_id::text)) UPDATE rb_seeded SET n = 5$$)) AS s (n, statement) ORDER BY n;
-- what is to change rows is one
SELECT cqrs_es.define_handler('rb seeded', 'b', statement), cqrs_es.rebuild_projection('rb seeded') IS NULL AS x
FROM (VALUES (1, $$UPDATE rb_seeded SET n = 5$$),
	(2, $$WITH x AS (SELECT event.aggregate_id AS id) UPDATE rb_seeded AS r SET n = 5 FROM x WHERE r.id = x.id$$),
	(3, $$MERGE INTO rb_seeded AS r USING (SELECT event.aggregate_id AS id) AS e ON r.id = e.id WHEN MATCHED THEN UPDATE SET n = 5$$)) AS s (n, statement) ORDER BY n;
-- of one that finds rows at some events only, it is not
INSERT INTO rb_seeded VALUES ('z', 0);
SELECT cqrs_es.define_handler('rb seeded', 'a', $$INSERT INTO rb_seeded VALUES (event.aggregate_id, 0) ON CONFLICT DO NOTHING$$);
SELECT cqrs_es.define_handler('rb seeded', 'b', 'UPDATE rb_seeded SET n = n + 1 WHERE id = event.aggregate_id');
SELECT cqrs_es.rebuild_projection('rb seeded');
SELECT * FROM rb_seeded;
SELECT cqrs_es.drop_handler('rb seeded', 'a');
CREATE FUNCTION rb_make(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$INSERT INTO rb_seeded VALUES (e.aggregate_id, 1)$$;
SELECT cqrs_es.define_handler('rb seeded', 'b', 'rb_make(cqrs_es.event)');
SELECT cqrs_es.rebuild_projection('rb seeded', on_error => 'skip');
SELECT cqrs_es.pause_projection('rb seeded');
SELECT version FROM cqrs_es.append_event('rb many', '1', 'b', '{}');
SELECT cqrs_es.resume_projection('rb seeded', on_error => 'skip');

-- a function's rows in the tables of the projection are counted, by whatever means it changes them
SELECT cqrs_es.define_handler('rb seeded', 'a', 'INSERT INTO rb_seeded VALUES (event.global_position::text, 0)');
CREATE OR REPLACE FUNCTION rb_make(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rb_other VALUES (e.event_id::text) ON CONFLICT DO NOTHING;
    UPDATE rb_seeded SET n = n + 1;
    BEGIN
        INSERT INTO rb_seeded VALUES (e.event_id, 1), (e.event_id::text || ' too', 2);
    EXCEPTION WHEN division_by_zero THEN
    END;
    DELETE FROM rb_seeded WHERE n > 2;
END $$;
SELECT cqrs_es.rebuild_projection('rb seeded');
SET LOCAL track_counts = off;
SELECT cqrs_es.rebuild_projection('rb seeded');
RESET track_counts;
CREATE TABLE rb_parts (id text PRIMARY KEY, n integer) PARTITION BY LIST (id);
CREATE TABLE rb_rest PARTITION OF rb_parts DEFAULT;
CREATE FUNCTION rb_part(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$INSERT INTO rb_parts VALUES (e.event_id::text, 1)$$;
SELECT cqrs_es.create_projection('rb parts', '{rb many}', '{rb_parts}');
SELECT cqrs_es.define_handler('rb parts', '*', 'rb_part');
SELECT cqrs_es.rebuild_projection('rb parts');
ROLLBACK;
