\i test/include/setup.sql
-- The tags of the rows of a statement, for which the table of tags is opened once: whatever comes in between, and however the statement ends.
BEGIN;
SELECT plan(15);
SELECT cqrs_es.define_tags('tagged', 'n:{/n}') IS NULL AS x \gset
CREATE FUNCTION pg_temp.wrong(of_type text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM cqrs_es.events AS e WHERE e.aggregate_type = of_type
	AND ARRAY(SELECT t.tag::text FROM cqrs_es.event_tags AS t WHERE t.global_position = e.global_position) IS DISTINCT FROM ARRAY['n:' || (e.payload->>'n')]
$$;
CREATE FUNCTION pg_temp.events(of_type text) RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = of_type$$;
CREATE FUNCTION public.statements_insert(of_type text, first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT of_type, (n % 3)::text, 'tagged', jsonb_build_object('n', n) FROM generate_series(first, last) AS n
$$;

SELECT public.statements_insert('statements', 1, 200) IS NULL AS x \gset
SELECT is(pg_temp.events('statements') - pg_temp.wrong('statements'), 200::bigint, 'more rows than are written at once');
WITH one AS (INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('statements with', '1', 'tagged', '{"n": 1}') RETURNING 1),
	two AS (INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('statements with', '2', 'tagged', '{"n": 2}') RETURNING 1)
	SELECT count(*) AS x FROM one, two \gset
SELECT is(pg_temp.events('statements with') - pg_temp.wrong('statements with'), 2::bigint, 'two INSERTs of one statement');

-- handlers that insert, some in blocks that fail, and look in between
CREATE FUNCTION public.statements_handle(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n int := (event.payload->>'n')::int;
BEGIN
	ASSERT (SELECT count(*) FROM cqrs_es.event_tags WHERE global_position = event.global_position AND tag = 'n:' || n) = 1;
	PERFORM public.statements_insert('statements inner', n * 10, n * 10 + 3);
	BEGIN
		PERFORM public.statements_insert('statements inner', n * 10 + 4, n * 10 + 6);
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('statements inner', 'x', 'tagged', '{"n": 0}'), ('statements inner', 'y', 'failed', '{"n": 0}'), ('statements inner', 'x', 'tagged', '{}');
		RAISE 'not reached';
	EXCEPTION WHEN SQLSTATE 'QE502' THEN
		NULL;
	END;
	PERFORM cqrs_es.append_event('statements inner', 'appended', 'tagged', jsonb_build_object('n', n * 10 + 7));
END $$;
SELECT cqrs_es.create_projection('statements', aggregate_types => '{statements outer}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('statements', 'tagged', 'public.statements_handle(cqrs_es.event)') IS NULL AS x \gset
SELECT public.statements_insert('statements outer', 1, 5) IS NULL AS x \gset
SELECT is(pg_temp.events('statements outer') - pg_temp.wrong('statements outer'), 5::bigint, 'rows whose handler inserts');
SELECT is(pg_temp.events('statements inner') - pg_temp.wrong('statements inner'), 25::bigint, 'and what it inserts');

-- a handler that fails amid the rows of a statement
CREATE FUNCTION public.statements_fail(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF event.payload->>'n' = '3' THEN RAISE 'three'; END IF; END $$;
SELECT cqrs_es.create_projection('statements fail', aggregate_types => '{statements failed}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('statements fail', 'tagged', 'public.statements_fail(cqrs_es.event)') IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT public.statements_insert('statements failed', 1, 5)$$), 'QE201', 'rows of which the third fails');
SELECT public.statements_insert('statements failed', 4, 8) IS NULL AS x \gset
SELECT is(pg_temp.events('statements failed') - pg_temp.wrong('statements failed'), 5::bigint, 'those of the next statement have their tags');
SAVEPOINT s;
SELECT public.statements_insert('statements savepoint', 1, 5) IS NULL AS x \gset
ROLLBACK TO s;
SELECT public.statements_insert('statements savepoint', 6, 9) IS NULL AS x \gset
SELECT is(pg_temp.events('statements savepoint') - pg_temp.wrong('statements savepoint'), 4::bigint, 'rows behind a savepoint that is rolled back');

-- who wants to change the table meanwhile
CREATE FUNCTION public.statements_alter(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE INDEX ON cqrs_es.event_tags (event_type); END $$;
SELECT cqrs_es.create_projection('statements alter', aggregate_types => '{statements altered}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('statements alter', 'tagged', 'public.statements_alter(cqrs_es.event)') IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT public.statements_insert('statements altered', 1, 2)$$), 'QE201', 'an index cannot be made by a handler');
SET LOCAL client_min_messages = error;
CREATE INDEX ON cqrs_es.event_tags (event_type);
SET LOCAL client_min_messages = warning;
SELECT public.statements_insert('statements indexed', 1, 3) IS NULL AS x \gset
SET LOCAL enable_seqscan = off;
SELECT is(count(*), 3::bigint, 'one that was made before has the rows') FROM cqrs_es.event_tags AS t JOIN cqrs_es.events AS e USING (global_position) WHERE t.event_type = 'tagged' AND e.aggregate_type = 'statements indexed';
RESET enable_seqscan;

-- without the trigger that tells the end
SAVEPOINT disabled;
ALTER TABLE cqrs_es.events DISABLE TRIGGER dispatch_event_queue;
SELECT public.statements_insert('statements disabled', 1, 3) IS NULL AS x \gset
SELECT is(pg_temp.events('statements disabled') - pg_temp.wrong('statements disabled'), 3::bigint, 'where nobody tells the end of statements');
ALTER TABLE cqrs_es.events ENABLE REPLICA TRIGGER dispatch_event_queue;
SELECT public.statements_insert('statements disabled', 4, 5) IS NULL AS x \gset
SELECT is(pg_temp.events('statements disabled') - pg_temp.wrong('statements disabled'), 5::bigint, 'or only of others');
DROP TRIGGER dispatch_event_queue ON cqrs_es.events;
SELECT public.statements_insert('statements disabled', 6, 8) IS NULL AS x \gset
SELECT is(pg_temp.events('statements disabled') - pg_temp.wrong('statements disabled'), 8::bigint, 'or it is gone');
CREATE TRIGGER dispatch_event_queue AFTER INSERT ON cqrs_es.events FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION cqrs_es.dispatch_event();
SELECT public.statements_insert('statements disabled', 9, 10) IS NULL AS x \gset
SELECT is(pg_temp.events('statements disabled') - pg_temp.wrong('statements disabled'), 10::bigint, 'or is never called');
ROLLBACK TO disabled;

-- COPY, and a MERGE-like statement
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) FROM PROGRAM 'for n in 1 2 3; do printf "statements copy\t1\ttagged\t{\"n\": $n}\n"; done'
SELECT is(pg_temp.events('statements copy') - pg_temp.wrong('statements copy'), 3::bigint, 'rows of a COPY');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) SELECT 'statements copy', '1', n, 'tagged', jsonb_build_object('n', n) FROM generate_series(2, 5) AS n ON CONFLICT DO NOTHING;
SELECT is(pg_temp.events('statements copy') - pg_temp.wrong('statements copy'), 5::bigint, 'and of those of an INSERT that were not there');
SELECT finish();
ROLLBACK;
