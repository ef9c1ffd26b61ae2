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
ROLLBACK;
