\i test/include/setup.sql
-- Many events that handlers append while others are being told of: they are told of in order, as who appended them, and do
-- not pile up in memory meanwhile.  And declarations that change again and again in one transaction.
BEGIN;
SELECT plan(12);
CREATE TABLE told (n serial, type text, sequence bigint, position bigint, payload jsonb, by_whom text);
CREATE TABLE memory (what text, n int, bytes bigint);
SELECT cqrs_es.create_projection('told', '{cry,echo}', '{told}') IS NULL AS a \gset
CREATE FUNCTION cry(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO told (type, sequence, position, payload) VALUES ('cry', event.sequence, event.global_position, event.payload);
	IF event.payload = '13' THEN
		BEGIN
			PERFORM cqrs_es.append_event('echo', 'undone', 'echo', event.payload);
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END IF;
	PERFORM cqrs_es.append_event('echo', event.aggregate_id, 'echo', event.payload, metadata => '{"by": "cry"}');
	IF event.sequence IN (100, 2000) THEN
		INSERT INTO memory SELECT event.aggregate_id, event.sequence, sum(total_bytes) FROM pg_backend_memory_contexts
			WHERE name LIKE 'cqrs\_es%' OR name = 'ExprContext' OR name = 'ExecutorState';
	END IF;
END $$;
SELECT cqrs_es.define_handler('told', 'cry', 'cry(cqrs_es.event)') IS NULL AS a,
	cqrs_es.define_handler('told', 'echo', $$INSERT INTO told (type, sequence, position, payload, by_whom) VALUES ('echo', event.sequence, event.global_position, event.payload, event.metadata->>'by')$$) IS NULL AS b \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'cry', 'rows', 'cry', to_jsonb(n) FROM generate_series(1, 2000) n;
SELECT is(count(*), 4000::bigint, 'all are told of') FROM told;
SELECT is_empty($$SELECT n FROM (SELECT n, position, lag(position) OVER (ORDER BY n) AS before FROM told) t WHERE position <= before$$, 'in the order of positions');
SELECT is_empty($$SELECT n FROM told WHERE type = 'echo' AND (to_jsonb(sequence) <> payload OR by_whom <> 'cry')$$, 'each as it is in the log');
SELECT is_empty($$SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'echo' EXCEPT SELECT position FROM told$$, 'none is left');
SELECT is_empty($$SELECT 1 FROM cqrs_es.events WHERE aggregate_id = 'undone'$$, 'what was rolled back is not');
SELECT cmp_ok((SELECT bytes FROM memory WHERE n = 2000) - (SELECT bytes FROM memory WHERE n = 100), '<', 256 * 1900::bigint, 'an event that waits takes little');
DELETE FROM told;
SELECT is((cqrs_es.append_events('cry', 'batch', (SELECT jsonb_agg(jsonb_build_object('type', 'cry', 'payload', n) ORDER BY n) FROM generate_series(1, 2000) n))).version, 2000::bigint, 'a batch');
SELECT is(count(*), 4000::bigint, 'all are told of') FROM told;
SELECT is_empty($$SELECT n FROM (SELECT n, position, lag(position) OVER (ORDER BY n) AS before FROM told) t WHERE position <= before$$, 'in the order of positions');
SELECT cmp_ok((SELECT bytes FROM memory WHERE what = 'batch' AND n = 2000) - (SELECT bytes FROM memory WHERE what = 'batch' AND n = 100), '<', 256 * 1900::bigint, 'and take little');

-- declarations

CREATE TABLE seen (id text PRIMARY KEY, n int);
SELECT cqrs_es.create_aggregate('redefined', '{"n": 0}', snapshot_every => 0) IS NULL AS a, cqrs_es.create_projection('redefined', '{redefined}', '{seen}') IS NULL AS b \gset
CREATE FUNCTION pg_temp.redefine(first int, last int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN first .. last LOOP
		PERFORM cqrs_es.define_reducer('redefined', 'e', jsonb_build_array(jsonb_build_object('op', 'increment', 'path', '/n', 'value', n))),
			cqrs_es.define_handler('redefined', 'e', format('INSERT INTO seen VALUES (event.aggregate_id, %s) ON CONFLICT (id) DO UPDATE SET n = excluded.n', n)),
			cqrs_es.append_event('redefined', 'a', 'e', '{}'),
			cqrs_es.define_tags('redefined', 'tag ' || n);
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('redefined', 'a', 'redefined', '{}');
	END LOOP;
	RETURN (SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'cqrs\_es%' OR ident LIKE 'cqrs\_es%' OR name LIKE 'CachedPlan%');
END $$;
SELECT pg_temp.redefine(1, 20) AS before \gset
SELECT cmp_ok(pg_temp.redefine(21, 60) - :before, '<', 40 * 1024::bigint, 'what was read of declarations that are old is not kept');
SELECT is(cqrs_es.aggregate_state('redefined', 'a'), '{"n": 3600}', 'and they hold');
SELECT finish();
ROLLBACK;
