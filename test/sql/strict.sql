\i test/include/setup.sql
-- Strict aggregates: what the reducers cannot take is refused when it is appended, on every path.
BEGIN;
SELECT plan(121);
CREATE FUNCTION checked(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF (event).payload ->> 'fail' IS NOT NULL THEN
		RAISE EXCEPTION 'no' USING ERRCODE = (event).payload ->> 'fail', DETAIL = 'For a reason.';
	END IF;
	RETURN state || jsonb_build_object('checked', (event).sequence);
END $$;
CREATE FUNCTION deposited_2(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT jsonb_build_object('amount', (payload ->> 'amount')::numeric)$$;
CREATE FUNCTION pg_temp.declare(type text, strict boolean) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.create_aggregate(type, '{"balance": 0}', snapshot_every => 4, strict => strict),
		cqrs_es.define_reducer(type, 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]'),
		cqrs_es.define_reducer(type, 'Opened', '[{"op": "set", "path": "/owner", "from": "/owner"}]'),
		cqrs_es.define_reducer(type, 'Renamed', '[{"op": "replace", "path": "/owner", "from": "/owner"}]'),
		cqrs_es.define_reducer(type, 'Noted', '[]'),
		cqrs_es.define_reducer(type, 'Checked', 'checked(jsonb, cqrs_es.event)'),
		cqrs_es.define_command(type, 'say', $q$command -> 'events'$q$) $$;
SELECT pg_temp.declare('strict', true) IS NULL AS x, pg_temp.declare('loose', false) IS NULL AS y \gset
SELECT is((SELECT array_agg(strict ORDER BY aggregate_type) FROM cqrs_es.aggregates WHERE aggregate_type IN ('strict', 'loose')), '{false,true}', 'one is strict, the other not');

-- every way in; the way may append to a stream first

CREATE FUNCTION pg_temp.by_command_in_handler(events jsonb) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('outer', 'x', 'relay', events)$$;
SELECT cqrs_es.create_projection('relay', '{outer}') IS NULL AS x \gset
CREATE FUNCTION relay(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.append_events((event).payload ->> 'type', (event).payload ->> 'id', (event).payload -> 'events');
END $$;
SELECT cqrs_es.define_handler('relay', 'relay', 'relay(cqrs_es.event)') IS NULL AS x \gset
CREATE FUNCTION pg_temp.append(way text, type text, id text, events jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE e jsonb;
BEGIN
	CASE way
		WHEN 'append_event' THEN
			FOR e IN SELECT jsonb_array_elements(events) LOOP
				PERFORM cqrs_es.append_event(type, id, e ->> 'type', e -> 'payload', event_version => coalesce(e ->> 'version', '1'));
			END LOOP;
		WHEN 'append_events' THEN PERFORM cqrs_es.append_events(type, id, events);
		WHEN 'append_event_arrays' THEN
			PERFORM cqrs_es.append_event_arrays(type, id, array_agg(x ->> 'type'), array_agg(x -> 'payload'), event_versions => array_agg(coalesce(x ->> 'version', '1'))) FROM jsonb_array_elements(events) x;
		WHEN 'INSERT' THEN
			INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, event_version)
			SELECT type, id, x ->> 'type', x -> 'payload', coalesce(x ->> 'version', '1') FROM jsonb_array_elements(events) WITH ORDINALITY AS o (x, n) ORDER BY n;
		WHEN 'INSERT of one' THEN
			FOR e IN SELECT jsonb_array_elements(events) LOOP
				INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, event_version) VALUES (type, id, e ->> 'type', e -> 'payload', coalesce(e ->> 'version', '1'));
			END LOOP;
		WHEN 'command' THEN PERFORM cqrs_es.execute_command(type, id, 'say', jsonb_build_object('events', events));
		WHEN 'handler' THEN PERFORM cqrs_es.append_event('outer', id, 'relay', jsonb_build_object('type', type, 'id', id, 'events', events));
	END CASE;
END $$;
CREATE TEMP TABLE ways (n serial, way text);
INSERT INTO ways (way) VALUES ('append_event'), ('append_events'), ('append_event_arrays'), ('INSERT'), ('INSERT of one'), ('command'), ('handler');
CREATE TEMP TABLE refused (n serial, what text, events jsonb, message text, detail text);
INSERT INTO refused (what, events, message, detail) VALUES
	('a mistyped type', '[{"type": "Depositd", "payload": {"balance": 1000000}}]', 'event 1 (Depositd) cannot be appended to stream "strict/%s"', 'Aggregate type "strict" is strict, and has no reducer for event type "Depositd".'),
	('a text for a number', '[{"type": "Deposited", "payload": {"amount": "12.50"}}]', 'event 1 (Deposited) cannot be appended to stream "strict/%s"', 'Its reducer cannot apply it: operation 1 (increment "/balance") of the reducer for "Deposited" cannot be applied (SQLSTATE QE102)%%'),
	('null', '[{"type": "Deposited", "payload": {"amount": null}}]', 'event 1 (Deposited) cannot be appended to stream "strict/%s"', 'Its reducer cannot apply it: operation 1%%'),
	('no fields at all', '[{"type": "Deposited", "payload": null}]', 'event 1 (Deposited) cannot be appended to stream "strict/%s"', 'Its reducer cannot apply it: operation 1%%'),
	('the last of a batch', '[{"type": "Opened", "payload": {"owner": "Ada"}}, {"type": "Renamed", "payload": {"owner": "Ann"}}, {"type": "Renamed", "payload": {"name": "Ann"}}]', 'event 3 (Renamed) cannot be appended to stream "strict/%s"', 'Its reducer cannot apply it: operation 1 (replace "/owner")%%'),
	('what the state has no place for', '[{"type": "Noted", "payload": 5}, {"type": "Renamed", "payload": {"owner": "Ann"}}]', 'event 2 (Renamed) cannot be appended to stream "strict/%s"', 'Its reducer cannot apply it: operation 1 (replace "/owner")%%'),
	('what a function refuses', '[{"type": "Checked", "payload": {"fail": "22023"}}]', 'event 1 (Checked) cannot be appended to stream "strict/%s"', E'Its reducer cannot apply it: no (SQLSTATE 22023)\nFor a reason.');
SELECT is((pg_temp.error_of(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, 'strict', way || r.n, events)))[1:2], ARRAY['QE103', format(message, way || r.n)], format('%s: %s', way, what)) FROM refused r, ways w ORDER BY w.n, r.n;
SELECT is_empty($$SELECT * FROM cqrs_es.events WHERE aggregate_type = 'strict'$$, 'nothing of it is in the log');
SELECT is(said[1:2] || (said[3] LIKE format(detail, '')) ::text || said[4:7], ARRAY['QE103', format(message, 'x'), 'true', 'strict', 'x', left(regexp_replace(message, '\D+', ''), 1), substring(message from '\((\w+)\)')], what || ': what is said')
FROM (SELECT r.*, pg_temp.error_of(format($$SELECT cqrs_es.append_events('strict', 'x', %L)$$, events), '{state,message,detail,schema,table,column,datatype}') AS said FROM refused r) x ORDER BY n;
SELECT lives_ok(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, 'strict', way, '[{"type": "Opened", "payload": {"owner": "Ada"}}, {"type": "Renamed", "payload": {"owner": "Ann"}}, {"type": "Deposited", "payload": {"amount": 5}}, {"type": "Checked", "payload": {}}, {"type": "Noted", "payload": []}]'), way || ': what depends on what stands before it') FROM ways ORDER BY n;
SELECT is(cqrs_es.aggregate_state('strict', way), '{"owner": "Ann", "balance": 5, "checked": 4}', way || ': the state') FROM ways ORDER BY n;
SELECT lives_ok(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, 'loose', way, '[{"type": "Depositd", "payload": {"balance": 7}}, {"type": "Noted", "payload": 5}]'), way || ': who is not strict is not asked') FROM ways ORDER BY n;
\set statements 'BEGIN; SELECT count(cqrs_es.create_aggregate(''strict copy'', strict => true)); SELECT count(cqrs_es.define_reducer(''strict copy'', ''a'', ''[{"op": "increment", "path": "/n", "from": "/n"}]'')); COPY cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) FROM PROGRAM ''printf "strict copy\\t1\\ta\\t{\\"n\\": 1}\\nstrict copy\\t2\\ta\\t{\\"n\\": 1}\\nstrict copy\\t1\\ta\\t{\\"n\\": \\"x\\"}\\n"''; ROLLBACK;'
\i test/include/session.sql
SELECT is(:'answer'::text, E'1\n1\nERROR:  QE103', 'COPY');

-- versions

SELECT cqrs_es.define_upcaster('Deposited', '1', '2', 'deposited_2(jsonb)') IS NULL AS x \gset
SELECT is((pg_temp.error_of(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, 'strict', way, '[{"type": "Deposited", "payload": {"amount": 5}}]')))[2], format('event 6 (Deposited) cannot be appended to stream "strict/%s"', way), way || ': an old version') FROM ways ORDER BY n;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('strict', 'v', 'Deposited', '{"amount": 5}')$$))[3:4], ARRAY['Its version "1" is an old one, which upcasters lift.', 'Append it in its newest shape, with that version: event_version => ''2'', or the member "version".'], 'what is said');
SELECT is((pg_temp.error_of(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, 'strict', way, '[{"type": "Deposited", "payload": {"amount": 5}, "version": "7"}]')))[1], 'QE103', way || ': a version that nothing knows') FROM ways ORDER BY n;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('strict', 'v', 'Deposited', '{"amount": 5}', event_version => '7')$$))[3:4], ARRAY['Its version "7" is none that upcasters of this event type know.', 'Is it mistyped? The newest one is ''2''. Define the upcaster to a newer one first.'], 'what is said of that');
SELECT lives_ok(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, 'strict', way, '[{"type": "Deposited", "payload": {"amount": 5}, "version": "2"}]'), way || ': the newest') FROM ways ORDER BY n;
SELECT lives_ok($$SELECT pg_temp.append('append_event', 'loose', 'old', '[{"type": "Deposited", "payload": {"amount": "5"}}]')$$, 'who is not strict takes any');
SELECT cqrs_es.drop_upcaster('Deposited', '1') IS NULL AS x \gset

-- within one transaction

CREATE FUNCTION pg_temp.in_savepoints() RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text := '';
BEGIN
	FOR i IN 1 .. 6 LOOP
		BEGIN
			PERFORM cqrs_es.append_event('strict', 's', 'Deposited', '{"amount": 1}');
			IF i % 3 = 1 THEN
				PERFORM cqrs_es.append_event('strict', 's', 'Depositd', '{}');
			ELSIF i % 3 = 2 THEN
				RAISE division_by_zero;
			END IF;
			said := said || 'done ';
		EXCEPTION WHEN OTHERS THEN
			said := said || SQLSTATE || ' ';
		END;
	END LOOP;
	RETURN said || (cqrs_es.load_aggregate('strict', 's'))::text;
END $$;
SELECT is(pg_temp.in_savepoints(), 'QE103 22012 done QE103 22012 done (2,"{""balance"": 2}")', 'what a savepoint takes back is forgotten');
SAVEPOINT s;
SELECT cqrs_es.append_event('strict', 's', 'Opened', '{"owner": "Ada"}') IS NULL AS x \gset
ROLLBACK TO s;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('strict', 's', 'Renamed', '{"owner": "Ann"}')$$))[2], 'event 3 (Renamed) cannot be appended to stream "strict/s"', 'the state is that without it, too');
SELECT is((pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'strict', 'mixed ' || n % 3, 'Deposited', CASE n WHEN 20 THEN '{}' ELSE '{"amount": 1}' END::jsonb FROM generate_series(1, 30) n$$))[2], 'event 7 (Deposited) cannot be appended to stream "strict/mixed 2"', 'one of many rows of many streams');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'strict', 'mixed ' || n % 3, 'Deposited', '{"amount": 1}' FROM generate_series(1, 3000) n$$, 'many rows of few streams');
SELECT lives_ok($$SELECT cqrs_es.append_events('strict', 'long', (SELECT jsonb_agg('{"type": "Deposited", "payload": {"amount": 1}}'::jsonb) FROM generate_series(1, 3000)))$$, 'a long batch');
SELECT is(cqrs_es.aggregate_state('strict', id), state, id) FROM (VALUES ('mixed 0', '{"balance": 1000}'::jsonb), ('long', '{"balance": 3000}')) v (id, state) ORDER BY id;
SELECT cqrs_es.define_reducer('strict', 'Closed', '[{"op": "set", "path": "/closed", "value": true}]') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.append_event('strict', 's', 'Closed', '{}', event_id => '01a214d2-0000-7000-8000-000000000001')$$, 'a type that was declared in this transaction');
SELECT cqrs_es.drop_reducer('strict', 'Closed') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.append_event('strict', 's', 'Closed', '{}', event_id => '01a214d2-0000-7000-8000-000000000001')$$, 'a retry appends nothing, so it is not asked');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('strict', 's', 'Closed', '{}')$$))[1], 'QE103', 'a new one is');
SELECT is((pg_temp.error_of(format($$SELECT cqrs_es.append_event('strict', 's', 'Checked', '{"fail": "%s"}')$$, state)))[1], state, state || ' of a reducer is handed on') FROM unnest('{40001,53400}'::text[]) state;

-- switched on and off

SELECT cqrs_es.alter_aggregate('strict', snapshot_every => 5) IS NULL AS x \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('strict', 's', 'Depositd', '{}')$$))[1], 'QE103', 'another change leaves it as it is');
SELECT cqrs_es.alter_aggregate('strict', strict => false) IS NULL AS x, cqrs_es.alter_aggregate('loose', strict => true) IS NULL AS y \gset
SELECT lives_ok($$SELECT cqrs_es.append_event('strict', 's', 'Depositd', '{}')$$, 'switched off');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('loose', 'new', 'Depositd', '{}')$$))[1], 'QE103', 'switched on');
SELECT throws_ok($$SELECT cqrs_es.create_aggregate('null', strict => NULL)$$, '22004', 'strict must not be null', 'null is neither');

-- a restored event is let in as it was, and a replica is not asked

SELECT lives_ok($$INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (1000000000, 1, 'loose', 'restored', 'Depositd', '{}')$$, 'restored');
SELECT finish();
ROLLBACK;
