\i test/include/setup.sql
-- Tags for the events that were there before they were defined.
SELECT cqrs_es.append_events('retag', 'a', (SELECT jsonb_agg(jsonb_build_object('type', CASE WHEN n % 2 = 0 THEN 'retag even' ELSE 'retag odd' END, 'payload', jsonb_build_object('n', n))) FROM generate_series(1, 20) n)) IS NULL AS x \gset
SELECT cqrs_es.append_event('retag', 'a', 'retag even', '{"n": 22}', tags => '{n:22,own}') IS NULL AS x \gset
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag even', 'n:{/n}', 'even') IS NULL AS x \gset
SET client_min_messages = warning;
SELECT cqrs_es.append_event('retag', 'a', 'retag even', '{"n": 24}') IS NULL AS x \gset
SELECT plan(27);
CREATE FUNCTION pg_temp.numbers(of_tag text) RETURNS SETOF int LANGUAGE sql AS $$
	SELECT (e.payload ->> 'n')::int FROM cqrs_es.event_tags AS t JOIN cqrs_es.events AS e USING (global_position) WHERE t.tag = of_tag AND e.aggregate_type = 'retag' ORDER BY 1
$$;
SELECT results_eq($$SELECT pg_temp.numbers('even')$$, 'VALUES (24)', 'only what came after');
SELECT results_eq($$SELECT is_complete, retagged_to, history_to < (SELECT max(global_position) FROM cqrs_es.events) FROM cqrs_es.tag_definitions WHERE event_type = 'retag even'$$, 'VALUES (false, 0::bigint, true)', 'so it is not complete');
-- the same definition again changes nothing
SELECT cqrs_es.define_tags('retag even', 'n:{/n}', 'even') IS NULL AS x \gset
SELECT results_eq($$SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'retag even'$$, 'VALUES (false)', '... also when it is defined again');
CALL cqrs_es.retag('retag even', 3);
SELECT results_eq($$SELECT pg_temp.numbers('even')$$, 'SELECT * FROM generate_series(2, 24, 2)', 'all of them, in portions');
SELECT results_eq($$SELECT pg_temp.numbers('n:22')$$, 'VALUES (22)', 'and none twice');
SELECT results_eq($$SELECT is_complete, retagged_to = history_to FROM cqrs_es.tag_definitions WHERE event_type = 'retag even'$$, 'VALUES (true, true)', 'then it is complete');
CALL cqrs_es.retag('retag even');
SELECT results_eq($$SELECT pg_temp.numbers('even')$$, 'SELECT * FROM generate_series(2, 24, 2)', 'a second time does nothing');

-- fewer tags than before need no history, others do
SELECT cqrs_es.define_tags('retag even', 'even') IS NULL AS x \gset
SELECT results_eq($$SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'retag even'$$, 'VALUES (true)', 'fewer tags: complete');
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag even', 'even', 'm:{/m}') IS NULL AS x \gset
SELECT cqrs_es.define_tags('retag odd', 'odd') IS NULL AS x \gset
SET client_min_messages = warning;
SELECT results_eq($$SELECT event_type COLLATE "default", is_complete FROM cqrs_es.tag_definitions WHERE event_type LIKE 'retag %' ORDER BY 1$$, $$VALUES ('retag even', false), ('retag odd', false)$$, 'others: not');

-- an event without a value, and what is to be done about it
\set statements 'CALL cqrs_es.retag(''retag even'')'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  QE502', 'an event in the log that has no value stops it');
SELECT results_eq($$SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'retag even'$$, 'VALUES (false)', '... and it stays as it was');
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag even', 'even', 'm:{/m?}') IS NULL AS x \gset
SET client_min_messages = warning;
CALL cqrs_es.retag();
SELECT results_eq($$SELECT event_type COLLATE "default", is_complete FROM cqrs_es.tag_definitions WHERE event_type LIKE 'retag %' ORDER BY 1$$, $$VALUES ('retag even', true), ('retag odd', true)$$, 'without a type: all that lack some');
SELECT results_eq($$SELECT pg_temp.numbers('odd')$$, 'SELECT * FROM generate_series(1, 19, 2)', '... all of them');

-- what it takes
SELECT is(pg_temp.error_of('CALL cqrs_es.retag(''retag even'')', '{state,message}'), '{25001,"retag() cannot run in a transaction block"}', 'transactions of its own');
\set statements 'CALL cqrs_es.retag(''retag none''); CALL cqrs_es.retag(''retag even'', 0); CALL cqrs_es.retag(''retag even'', NULL);'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  42704\nERROR:  22023\nERROR:  22004', 'a type that has a definition, and a portion');

-- a definition with history that is dropped and made again
SELECT cqrs_es.drop_tags('retag odd') IS NULL AS x \gset
SELECT cqrs_es.append_event('retag', 'a', 'retag odd', '{"n": 21}') IS NULL AS x \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.define_tags('retag new type', 'new')$$), NULL, 'a type without events needs none');
SELECT results_eq($$SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'retag new type'$$, 'VALUES (true)', '... it is complete');
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag odd', 'odd') IS NULL AS x \gset
SET client_min_messages = warning;
CALL cqrs_es.retag('retag odd', 1);
SELECT results_eq($$SELECT pg_temp.numbers('odd')$$, 'SELECT * FROM generate_series(1, 21, 2)', 'what came while nothing was defined gets its tag, and the others none twice');
SELECT results_eq($$SELECT count(*), count(DISTINCT (tag, global_position)) FROM cqrs_es.event_tags WHERE event_type LIKE 'retag %'$$,
	$$SELECT count(*), count(*) FROM cqrs_es.event_tags WHERE event_type LIKE 'retag %'$$, 'no tag is there twice');

-- events that are ahead of the sequence, as those of a replicated log are
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at) SELECT last_value + 100 + n, n, 'retag', 'ahead', 'retag ahead', jsonb_build_object('n', n), now() FROM cqrs_es.events_global_position_seq, generate_series(1, 3) n;
COMMIT;
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag ahead', 'ahead') IS NULL AS x \gset
SET client_min_messages = warning;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_matching('[{"tags": ["ahead"]}]')$$), '55000', 'events ahead of the sequence lack their tags');
CALL cqrs_es.retag('retag ahead', 2);
SELECT results_eq($$SELECT (payload ->> 'n')::int FROM cqrs_es.read_matching('[{"tags": ["ahead"]}]')$$, 'VALUES (1), (2), (3)', '... which they get');
-- and those that the transaction itself has restored, having drawn before
BEGIN;
SELECT cqrs_es.append_event('retag', 'a', 'retag drawn', '{}') IS NULL AS x \gset
SET LOCAL session_replication_role = replica;
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at) SELECT last_value + 100, 1, 'retag', 'own', 'retag own', '{}', now() FROM cqrs_es.events_global_position_seq;
SET LOCAL client_min_messages = error;
SELECT cqrs_es.define_tags('retag own', 'own one') IS NULL AS x \gset
COMMIT;
CALL cqrs_es.retag('retag own');
SELECT results_eq($$SELECT aggregate_id COLLATE "default" FROM cqrs_es.read_matching('[{"tags": ["own one"]}]')$$, $$VALUES ('own')$$, '... also in the transaction that defines the tags');
SELECT results_eq($$SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'retag own'$$, 'VALUES (true)', '... then it is complete');

-- no more tags than an event could have been appended with
SELECT cqrs_es.append_event('retag', 'many', 'retag many', '{}', tags => ARRAY(SELECT 'many ' || i FROM generate_series(1, 999) AS i)) IS NULL AS x \gset
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag many', 'one', 'too many') IS NULL AS x \gset
SET client_min_messages = warning;
\set statements 'CALL cqrs_es.retag(''retag many'')'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  54000', 'an event that would have more than 1,000 tags stops it');
SELECT is((SELECT count(*) FROM cqrs_es.event_tags WHERE event_type = 'retag many'), 999::bigint, '... and has those that it had');
SET client_min_messages = error;
SELECT cqrs_es.define_tags('retag many', 'one') IS NULL AS x \gset
SET client_min_messages = warning;
CALL cqrs_es.retag('retag many');
SELECT is((SELECT count(*) FROM cqrs_es.event_tags WHERE event_type = 'retag many'), 1000::bigint, '... 1,000 it may have');

-- leave nothing behind
SELECT cqrs_es.drop_tags(event_type) FROM cqrs_es.tag_definitions WHERE event_type LIKE 'retag %' \g /dev/null
SELECT is((SELECT count(*) FROM cqrs_es.tag_definitions WHERE event_type LIKE 'retag %'), 0::bigint, 'nothing is defined any more');
SELECT * FROM finish();
