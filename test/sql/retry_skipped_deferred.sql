\i test/include/setup.sql
-- Skipped events that are retried beside deferred triggers, which no rebuild has left.
BEGIN;
SELECT plan(7);
CREATE SCHEMA rd;
SET LOCAL search_path = rd, public;
CREATE TABLE rd.amounts (id text PRIMARY KEY, amount numeric NOT NULL);
CREATE FUNCTION rd.nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON rd.amounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rd.nothing();
CREATE FUNCTION rd.follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO rd.amounts VALUES (event.aggregate_id, (event.payload->>'amount')::numeric);
	SELECT cqrs_es.append_event('rd letter', event.aggregate_id, 'Requested', '{}');
$$;
SELECT cqrs_es.create_projection('rd', '{rd}', '{amounts}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('rd', 'made', 'rd.follow(cqrs_es.event)') IS NULL AS y \gset
SELECT count(cqrs_es.append_event('rd', id, 'made', '{"amount": "much"}')) AS x FROM unnest('{a,b,c}'::text[]) AS id \gset
SELECT is(cqrs_es.resume_projection('rd', on_error => 'skip'), 0::bigint, 'none of them can be handled');
CREATE OR REPLACE FUNCTION rd.follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO rd.amounts VALUES (event.aggregate_id, 7);
	SELECT cqrs_es.append_event('rd letter', event.aggregate_id, 'Requested', '{}');
$$;
SELECT results_eq($$SELECT handled, failed FROM cqrs_es.retry_skipped('rd')$$, $$VALUES (3::bigint, 0::bigint)$$, 'all can now, and append what follows');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rd letter'), 3::bigint, 'which is in the log');
SELECT lives_ok($$SELECT cqrs_es.append_event('rd', 'd', 'made', '{}')$$, 'and so may anybody else');

-- Behind a rebuild nothing may be appended while its deferred triggers wait: that is no fault of an event.
CREATE TABLE rd.plain (id text PRIMARY KEY);
CREATE FUNCTION rd.not_yet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON rd.plain DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rd.not_yet();
CREATE TABLE rd.others (id text PRIMARY KEY);
CREATE FUNCTION rd.write(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event('rd other', event.aggregate_id, 'Requested', '{}');
$$;
SELECT cqrs_es.create_projection('rd plain', '{rd}', '{plain}') IS NULL AS x,
	cqrs_es.define_handler('rd plain', 'made', 'INSERT INTO plain VALUES (event.aggregate_id)') IS NULL AS y,
	cqrs_es.create_projection('rd others', '{rd}', '{others}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('rd others', 'made', 'rd.write(cqrs_es.event)') IS NULL AS y \gset
SELECT is(cqrs_es.rebuild_projection('rd plain'), 4::bigint, 'a rebuild that leaves deferred triggers behind');
SELECT throws_ok($$SELECT cqrs_es.resume_projection('rd others', on_error => 'skip')$$, '55000', 'events cannot be appended while deferred triggers of a rebuild wait or run', 'is no reason to skip the events of another projection');
CREATE OR REPLACE FUNCTION rd.not_yet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
SELECT is(cqrs_es.resume_projection('rd others', on_error => 'skip'), 4::bigint, 'which are handled when the triggers can run before them');
SELECT finish();
ROLLBACK;
