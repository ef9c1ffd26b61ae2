\i test/include/setup.sql
-- The least and the greatest number wherever one may be given: none wraps around.
BEGIN;
SELECT plan(28);
\set least '''-9223372036854775808''::bigint'
\set greatest '''9223372036854775807''::bigint'
SELECT cqrs_es.create_aggregate('extreme', '{}', 100) IS NULL AS x \gset
SELECT cqrs_es.append_events('extreme', 'a', '[{"type": "e", "payload": {"n": 1}}, {"type": "e", "payload": {"n": 2}}]') IS NULL AS x \gset

-- expected versions
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('extreme', 'a', 'e', '{}', 9223372036854775807)$$), 'QE001', 'a version that no stream has');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('extreme', 'a', 'e', '{}', 9223372036854775807, event_id => gen_random_uuid())$$), 'QE001', 'also with an id to look for');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.append_event('extreme', 'a', 'e', '{}', %s)$$, :least)), '22023', 'and one that is none');

-- places in a stream
SELECT is(pg_temp.state_of(format($$SELECT * FROM cqrs_es.replay('extreme', 'a', %s)$$, :least)), '22023', 'replay from before the beginning');
SELECT is((SELECT count(*) FROM cqrs_es.replay('extreme', 'a', :greatest)), 0::bigint, 'replay from behind the end');
SELECT is((SELECT count(*) FROM cqrs_es.replay('extreme', 'a', 1, :greatest)), 2::bigint, 'replay of as many as there can be');
SELECT is(pg_temp.state_of(format($$SELECT * FROM cqrs_es.read_stream('extreme', 'a', %s)$$, :least)), '22023', 'read from before the beginning');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('extreme', 'a', :greatest)), 0::bigint, 'read from behind the end');
SELECT is((SELECT string_agg(sequence::text, ' ') FROM cqrs_es.read_stream('extreme', 'a', :greatest, :greatest, true)), '2 1', 'backward from there');
SELECT is(cqrs_es.aggregate_state('extreme', 'a', at_sequence => :greatest), '{"n": 2}', 'the state as of a sequence that is not there');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.aggregate_state('extreme', 'a', at_sequence => %s)$$, :least)), '22023', 'and of one that cannot be');
SELECT is((pg_temp.error_of(format($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('extreme', 'a', %s, 'e', '{}')$$, :greatest)))[1:2],
	ARRAY['QE003', 'sequence 9223372036854775807 would leave a hole in stream "extreme/a"'], 'a plain INSERT');

-- positions
SELECT is((SELECT count(*) FROM cqrs_es.read_all(:greatest, :greatest)), 0::bigint, 'read_all from behind everything');
SELECT results_eq(format('SELECT read_to FROM cqrs_es.read_page(%s, 10)', :greatest), format('SELECT %s', :greatest), 'so read_page, which goes no further');
SELECT is(pg_temp.state_of(format($$SELECT * FROM cqrs_es.read_all(%s)$$, :least)), '22023', 'read_all from before everything');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.wait_for_position(%s, '0')$$, :greatest)), '22023', 'a position of no node is not waited for');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.wait_for_position(%s, '0')$$, :least)), '22023', 'nor one of before the beginning');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.wait_for_position(0, '170000000 years')$$), '22008', 'a time that does not come');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('extreme2', '{}', -2147483648)$$), '22023', 'snapshots every so many events');

-- restored events, which come as they are
CREATE FUNCTION pg_temp.restore(id text, "position" bigint, sequence bigint) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (global_position, sequence, created_at, aggregate_type, aggregate_id, event_type, payload) VALUES ($2, $3, now(), 'extreme', $1, 'e', '{}')
$$;
SELECT lives_ok(format($$SELECT pg_temp.restore('b', %s, 1)$$, :greatest), 'an event at the greatest position');
SELECT is((pg_temp.error_of(format($$SELECT pg_temp.restore('c', %s, 1)$$, :greatest)))[1:2],
	ARRAY['23505', 'position 9223372036854775807 is in the log already'], 'of which there is one');
SELECT is(pg_temp.state_of(format($$SELECT pg_temp.restore('c', %s, 1)$$, :least)), '22023', 'none at the least one');
SELECT lives_ok(format($$SELECT pg_temp.restore('full', 9000000000000000000, %s)$$, :greatest), 'a stream with the greatest sequence');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('extreme', 'full', 'e', '{}')$$),
	ARRAY['2200H', 'stream "extreme/full" is full', 'It is at version 9223372036854775807.', ''], 'has no place for another event');
SELECT is((pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('extreme', 'full', 'e', '{}')$$))[1], '2200H', 'however it comes');
SELECT lives_ok($$SELECT pg_temp.restore('nearly', 9000000000000000001, 9223372036854775805)$$, 'one that is nearly full');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_events('extreme', 'nearly', '[{"type": "e", "payload": 1}, {"type": "e", "payload": 2}, {"type": "e", "payload": 3}]')$$),
	'2200H', 'has no place for three');
-- sums of all sorts of lengths, before the point and behind it, are what the server makes them
SELECT cqrs_es.create_aggregate('digits', '{"n": 0}', 0) IS NULL AS x, cqrs_es.define_reducer('digits', 'added', '[{"op": "increment", "path": "/n", "from": "/by"}]') IS NULL AS y \gset
CREATE TEMP TABLE numbers AS SELECT format('%s %s %s', digits, zeros, scale) AS id, round(digits * (10::numeric ^ zeros), scale) AS n
	FROM unnest('{0,1,-7,99,123456789,-1234567890123456}'::numeric[]) AS digits, generate_series(-9, 20) AS zeros, generate_series(0, 9) AS scale;
SELECT count(cqrs_es.append_event('digits', id, 'added', jsonb_build_object('by', n))) AS x FROM numbers \gset
SELECT count(cqrs_es.append_event('digits', id, 'added', '{"by": 0.5}')) AS x FROM numbers \gset
SELECT is_empty($$SELECT id, n, state ->> 'n' FROM numbers, LATERAL (SELECT cqrs_es.aggregate_state('digits', id) AS state) AS s WHERE state ->> 'n' <> (n + 0.5)::text$$, 'numbers of all lengths');

SELECT finish();
ROLLBACK;
