\i test/include/setup.sql
-- One append to several streams: in the order given, all or nothing, each stream at its version, again by its ids.

-- What isolation levels and read-only transactions make of it, to be looked at below.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) AS ser1 FROM cqrs_es.append_to_streams('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1"}, {"type": "e", "aggregate_type": "s", "aggregate_id": "2", "expected_version": 0}]') \gset
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]')$$) AS ro1 \gset
ROLLBACK;

BEGIN;
SELECT plan(60);

-- What the log has behind a position, in the order of positions.
CREATE FUNCTION pg_temp.behind(after bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s/%s:%s %s', aggregate_type, aggregate_id, sequence, event_type), ', ' ORDER BY global_position)
	FROM cqrs_es.events WHERE global_position > after
$$;
CREATE FUNCTION pg_temp.here() RETURNS bigint LANGUAGE sql AS 'SELECT coalesce(max(global_position), 0) FROM cqrs_es.events';

-- several streams

SELECT pg_temp.here() AS here \gset
CREATE TEMP TABLE first AS SELECT row_number() OVER () AS n, * FROM cqrs_es.append_to_streams('[
	{"aggregate_type": "order", "aggregate_id": "7", "type": "Placed", "payload": {"n": 1}, "metadata": {"m": 1}, "version": "2"},
	{"aggregate_type": "account", "aggregate_id": "3", "type": "Charged"},
	{"aggregate_type": "order", "aggregate_id": "7", "type": "Paid", "payload": null},
	{"aggregate_type": "a", "aggregate_id": "9", "type": "Noted", "payload": [1]}]');
SELECT is(pg_temp.behind(:here), 'order/7:1 Placed, account/3:1 Charged, order/7:2 Paid, a/9:1 Noted', 'events come in the order in which they were given');
SELECT is((SELECT string_agg(format('%s/%s:%s', aggregate_type, aggregate_id, version), ' ' ORDER BY n) FROM first), 'order/7:2 account/3:1 a/9:1', 'a row for each stream, as they were named, with its version');
SELECT is((SELECT string_agg(event_type, ' ' ORDER BY n) FROM first JOIN cqrs_es.events USING (global_position)), 'Paid Charged Noted', 'and the position of its last event');
SELECT results_eq($$SELECT event_version, payload, metadata FROM cqrs_es.read_stream('order', '7')$$,
	$$VALUES ('2', '{"n": 1}'::jsonb, '{"m": 1}'::jsonb), ('1', 'null', '{}')$$, 'with all members, or their defaults');
SELECT is(payload, '{}', 'no payload is an event without fields') FROM cqrs_es.read_stream('account', '3');
SELECT is(:ser1, 2, 'in SERIALIZABLE, too');
SELECT is(:'ro1'::text, '25006', 'nothing is appended in a read-only transaction');

-- a stream of its own

SELECT pg_temp.here() AS here \gset
CREATE TEMP TABLE own AS SELECT row_number() OVER () AS n, * FROM cqrs_es.append_to_streams('[
	{"type": "One", "id": "00000000-0000-7000-8000-00000000000A"}, {"type": "Two"}, {"aggregate_type": "order", "aggregate_id": "7", "type": "Sent"}, {"type": "Three"}]');
SELECT is((SELECT string_agg(event_type, ' ' ORDER BY global_position) FROM cqrs_es.events WHERE global_position > :here), 'One Two Sent Three', 'events without a stream, among others');
SELECT is((SELECT string_agg(concat_ws('/', nullif(aggregate_type, '$event'), version), ' ' ORDER BY n) FROM own), '1 1 order/3 1', 'each is one of its own');
SELECT is(aggregate_id, '00000000-0000-7000-8000-00000000000a', 'with the id of the event') FROM own WHERE n = 1;
SELECT is(count(*), 3::bigint, 'made or given') FROM cqrs_es.events WHERE aggregate_type = '$event' AND aggregate_id = event_id::text AND global_position > :here;
SELECT is((SELECT version FROM cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('type', 'More', 'aggregate_type', '$event', 'aggregate_id', aggregate_id)))),
	2::bigint, 'which can go on, by its name') FROM own WHERE n = 2;

-- expected versions

SELECT is((SELECT version FROM cqrs_es.append_to_streams('[{"aggregate_type": "v", "aggregate_id": "1", "type": "e", "expected_version": 0},
	{"aggregate_type": "v", "aggregate_id": "1", "type": "e"}, {"aggregate_type": "v", "aggregate_id": "1", "type": "e", "expected_version": 0}]')),
	3::bigint, 'a version is that before the first event of the call to the stream');
SELECT is((SELECT version FROM cqrs_es.append_to_streams('[{"aggregate_type": "v", "aggregate_id": "1", "type": "e"},
	{"aggregate_type": "v", "aggregate_id": "1", "type": "e", "expected_version": 3}]')), 5::bigint, 'whichever of them says it');
SELECT is((SELECT version FROM cqrs_es.append_to_streams('[{"aggregate_type": "v", "aggregate_id": "1", "type": "e", "expected_version": -1}]')), 6::bigint, 'or that the stream exists');
SELECT is((SELECT version FROM cqrs_es.append_to_streams('[{"aggregate_type": "v", "aggregate_id": "1", "type": "e", "expected_version": null}]')), 7::bigint, 'or any');
SELECT pg_temp.here() AS here \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"aggregate_type": "a", "aggregate_id": "9", "type": "e"},
	{"aggregate_type": "v", "aggregate_id": "1", "type": "e", "expected_version": 4}, {"aggregate_type": "z", "aggregate_id": "1", "type": "e"}]')$$,
	'{state,message,detail,hint,schema,table,column,datatype}'),
	ARRAY['QE001', 'version conflict in stream "v/1"', 'Expected version 4, but the stream is at version 7.',
	'Read the stream again, decide again, and append with the version you read.', 'v', '1', '4', '7'], 'a stale version is the error of its stream');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"aggregate_type": "v", "aggregate_id": "none", "type": "e", "expected_version": -1}, {"type": "e"}]')$$,
	'{state,schema,table,column,datatype}'), ARRAY['QE001', 'v', 'none', '-1', '0'], 'a stream that must exist, likewise');
SELECT is(pg_temp.here(), :here::bigint, 'and nothing was written, to none of the streams');

-- what the members are: of a batch for one stream they are fewer

SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"type": "e", "stream": "s"}]')$$, '{message,hint}'),
	'{"an event has no member \"stream\"","The members are type, payload, metadata, id, version, tags, aggregate_type, aggregate_id and expected_version."}', 'the members of an event with its stream');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_events('s', '1', '[{"type": "e", "stream": "s"}]')$$, '{message,hint}'),
	'{"an event has no member \"stream\"","The members are type, payload, metadata, id, version and tags."}', '... and without');

-- sent again

CREATE FUNCTION pg_temp.again(tail text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s/%s:%s@%s', aggregate_type, aggregate_id, version, global_position), ' ' ORDER BY aggregate_type)
	FROM cqrs_es.append_to_streams(('[{"aggregate_type": "r", "aggregate_id": "1", "type": "e", "id": "00000000-0000-7000-8000-000000000001"},
		{"aggregate_type": "q", "aggregate_id": "1", "type": "e", "id": "00000000-0000-7000-8000-000000000002", "expected_version": 0},
		{"type": "e", "id": "00000000-0000-7000-8000-000000000003"}' || tail || ']')::jsonb)
$$;
SELECT pg_temp.again() AS sent, pg_temp.here() AS here \gset
SELECT is(pg_temp.again(), :'sent', 'an append with ids that is sent again gets the first answer');
SELECT is(pg_temp.here(), :here::bigint, 'and writes nothing');
SELECT count(*) FROM cqrs_es.append_to_streams('[{"aggregate_type": "r", "aggregate_id": "1", "type": "e"}, {"aggregate_type": "q", "aggregate_id": "1", "type": "e"}]') \gset
SELECT is(pg_temp.again(), :'sent', 'also when the streams went on');
SELECT is(pg_temp.error_of($$SELECT pg_temp.again(', {"aggregate_type": "p", "aggregate_id": "1", "type": "e", "id": "00000000-0000-7000-8000-000000000004"}')$$, '{state,message}'),
	ARRAY['QE002', 'event id 00000000-0000-7000-8000-000000000001 is already used in stream "r/1"'], 'with another event in another stream it is another append');
SELECT is(pg_temp.state_of($$SELECT pg_temp.again(', {"type": "e"}')$$), 'QE002', 'with one that has no id, too');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "other", "id": "00000000-0000-7000-8000-000000000003"}]')$$), 'QE002', 'an id with other content is refused');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e", "id": "00000000-0000-7000-8000-000000000005"}, {"type": "e", "id": "00000000-0000-7000-8000-000000000005"}]')$$),
	'22023', 'an id that stands twice as well');
SELECT is((SELECT global_position FROM cqrs_es.append_to_streams('[{"aggregate_type": "r", "aggregate_id": "1", "type": "e", "id": "00000000-0000-7000-8000-000000000001"}]',
	after_position => pg_temp.here())), (SELECT global_position FROM cqrs_es.events WHERE event_id = '00000000-0000-7000-8000-000000000001'), 'ids are looked for in all of the stream, whatever after_position is');

-- handlers are told when all is there, in the order of positions

SELECT cqrs_es.create_projection('seen') IS NULL AS x \gset
CREATE TABLE public.told (n serial, event_type text, streams bigint);
SELECT count(cqrs_es.define_handler('seen', type, 'INSERT INTO public.told (event_type, streams) SELECT event.event_type, count(*) FROM cqrs_es.events WHERE aggregate_type = ''h'''))
FROM unnest('{H1,H2,H3}'::text[]) AS type \gset
SELECT count(*) FROM cqrs_es.append_to_streams('[{"aggregate_type": "h", "aggregate_id": "2", "type": "H1"}, {"aggregate_type": "h", "aggregate_id": "1", "type": "H2"},
	{"aggregate_type": "h", "aggregate_id": "2", "type": "H3"}]') \gset
SELECT is((SELECT string_agg(event_type || streams, ' ' ORDER BY n) FROM public.told), 'H13 H23 H33', 'handlers are told in the order of the events, with all of them in the log');

-- many

SELECT pg_temp.here() AS here \gset
SELECT is((SELECT array_agg(DISTINCT version) FROM cqrs_es.append_to_streams((SELECT jsonb_agg(jsonb_build_object(
	'aggregate_type', 'many', 'aggregate_id', (n % 100)::text, 'type', n::text) ORDER BY n) FROM generate_series(1, 1000) AS n))),
	'{10}', 'a thousand events for a hundred streams');
SELECT is((SELECT bool_and(event_type::int = n) FROM (SELECT event_type, row_number() OVER (ORDER BY global_position) AS n FROM cqrs_es.events WHERE global_position > :here) AS e),
	true, 'in their order');
SELECT is(string_agg(problem, ' '), NULL, 'and the log is whole') FROM cqrs_es.verify_log();

-- what is no append

CREATE FUNCTION pg_temp.refused(events text) RETURNS text LANGUAGE sql AS $$
	SELECT array_to_string(pg_temp.error_of(format('SELECT cqrs_es.append_to_streams(%L)', events), '{state,message}'), ' ')
$$;
SELECT is(pg_temp.refused(events), refused, coalesce(events, 'NULL')) FROM (VALUES
	(NULL, '22004 events must not be null'),
	('{"type": "e"}', '22023 events must be a JSON array'),
	('"e"', '22023 events must be a JSON array'),
	('[]', '22023 there must be at least one event to append'),
	('[1]', '22023 an event must be a JSON object'),
	('[null]', '22023 an event must be a JSON object'),
	('[{}]', '22023 an event must have a member "type"'),
	('[{"type": ""}]', '22023 event_type must not be empty'),
	('[{"type": "e", "stream": "s"}]', '22023 an event has no member "stream"'),
	('[{"type": "e", "aggregate_type": "s"}]', '22023 a stream needs both "aggregate_type" and "aggregate_id"'),
	('[{"type": "e", "aggregate_id": "s"}]', '22023 a stream needs both "aggregate_type" and "aggregate_id"'),
	('[{"type": "e", "aggregate_type": "", "aggregate_id": "s"}]', '22023 aggregate_type must not be empty'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": 1}]', '22023 member "aggregate_id" of an event must be a string'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "' || repeat('x', 1025) || '"}]', '22001 aggregate_id is too long'),
	('[{"type": "e", "expected_version": 0}]', '22023 "expected_version" needs a stream'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": "0"}]', '22023 member "expected_version" of an event must be a whole number'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": 0.5}]', '22023 member "expected_version" of an event must be a whole number'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": -2}]', '22023 expected_version -2 is out of range'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": 1e30}]', '22023 expected_version 1000000000000000000000000000000 is out of range'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": -1e30}]', '22023 expected_version -1000000000000000000000000000000 is out of range'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": 9223372036854775808}]', '22023 expected_version 9223372036854775808 is out of range'),
	('[{"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": 0}, {"type": "e", "aggregate_type": "s", "aggregate_id": "1", "expected_version": 1}]',
	'22023 stream "s/1" is expected at two versions'),
	('[{"type": "e", "id": "x"}]', '22P02 invalid input syntax for type uuid: "x"')) AS r (events, refused);
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', after_position => 9007199254740000)$$, '{state}'), '{22023}', 'a position of another node');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', after_position => 17592186044415)$$, '{state,message}'))[2],
	'position 17592186044415 is ahead of the log', 'a position ahead of the log');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', after_position => -1)$$), '22023', 'one below zero');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', after_position => NULL)$$), 'none', 'NULL is 0');

SELECT * FROM finish();
ROLLBACK;
