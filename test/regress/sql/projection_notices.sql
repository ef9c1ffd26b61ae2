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
CREATE FUNCTION rb_make(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$INSERT INTO rb_seeded VALUES (e.aggregate_id, 1)$$;
SELECT cqrs_es.define_handler('rb seeded', 'b', 'rb_make(cqrs_es.event)');
SELECT cqrs_es.rebuild_projection('rb seeded', on_error => 'skip');
SELECT cqrs_es.pause_projection('rb seeded');
SELECT version FROM cqrs_es.append_event('rb many', '1', 'b', '{}');
SELECT cqrs_es.resume_projection('rb seeded', on_error => 'skip');
ROLLBACK;
