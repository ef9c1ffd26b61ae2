\i test/include/setup.sql
-- Redaction: what is replaced, what stays, who may, and what follows.
BEGIN;
SELECT plan(58);
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.payloads(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(payload::text, ' ' ORDER BY sequence) FROM cqrs_es.read_stream('redacted', id) WHERE event_type <> '$redacted' $$;
CREATE FUNCTION pg_temp.appended(id text, VARIADIC payloads jsonb[]) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event('redacted', id, 'named', p, metadata => '{"user": "bob", "trace": 1}') FROM unnest(payloads) AS p $$;
SELECT FROM cqrs_es.create_aggregate('redacted', snapshot_every => 2);

-- what is replaced

SELECT FROM pg_temp.appended('a', '{"name": "Bob", "age": 7}', '{"other": 1}', '{"name": "Bobby", "of": {"a/b": ["x", "Bob"]}}');
CREATE TEMP TABLE before AS SELECT * FROM cqrs_es.events WHERE aggregate_type = 'redacted' AND aggregate_id = 'a';
SELECT is(cqrs_es.redact_stream('redacted', 'a', '{/payload/name,/payload/of/a~1b/1,/metadata/user,/payload/none}', 'wanted'), 3::bigint, 'events are counted that had any of it');
SELECT is(pg_temp.payloads('a'), '{"age": 7, "name": null} {"other": 1} {"of": {"a/b": ["x", null]}, "name": null}', 'what the pointers lead to is null, and all else is as it was');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('redacted', 'a') WHERE metadata = '{"user": null, "trace": 1}'), 3::bigint, 'metadata as well');
SELECT is_empty($$SELECT global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version FROM before
	EXCEPT SELECT global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version FROM cqrs_es.events$$,
	'position, sequence, time, id, type stay');
SELECT is((SELECT concat_ws(' ', sequence, event_type, payload) FROM cqrs_es.read_stream('redacted', 'a', 4)),
	'4 $redacted {"reason": "wanted", "pointers": ["/payload/name", "/payload/of/a~1b/1", "/metadata/user", "/payload/none"]}', 'an event behind them says so');
SELECT is((SELECT concat_ws(' ', r.aggregate_id, r.positions, r.pointers, r.reason, r.redacted_by = current_user, r.redacted_at BETWEEN now() AND clock_timestamp())
	FROM cqrs_es.redactions r JOIN cqrs_es.events e USING (global_position, aggregate_type, aggregate_id) WHERE e.event_type = '$redacted'),
	(SELECT concat_ws(' ', 'a', array_agg(global_position ORDER BY sequence), '{/payload/name,/payload/of/a~1b/1,/metadata/user,/payload/none} wanted t t') FROM before),
	'and a row: who, when, why, and to which events');
SELECT is(cqrs_es.redact_stream('redacted', 'a', '{/payload/name,/metadata/user}', 'again'), 0::bigint, 'again there is nothing to do');
SELECT is(cqrs_es.stream_version('redacted', 'a'), 4::bigint, 'and nothing is written');
SELECT is((SELECT count(*) FROM cqrs_es.redactions), 1::bigint, 'no row either');

SELECT FROM pg_temp.appended('given', '{"name": "Bob"}', '"Bob"', '["Bob", "x"]', '{"name": {"first": "Bob"}}');
SELECT is(cqrs_es.redact_stream('redacted', 'given', '{/payload/name}', 'wanted', '"erased"'), 2::bigint, 'a given value');
SELECT is(pg_temp.payloads('given'), '{"name": "erased"} "Bob" ["Bob", "x"] {"name": "erased"}', 'instead of null');
SELECT is(cqrs_es.redact_stream('redacted', 'given', '{/payload/0}', 'wanted'), 1::bigint, 'an element of an array');
SELECT is(pg_temp.payloads('given'), '{"name": "erased"} "Bob" [null, "x"] {"name": "erased"}', 'and not of what is none');
SELECT is(cqrs_es.redact_stream('redacted', 'given', '{/payload/-1,/payload/name/first,/payload/00}', 'wanted'), 0::bigint, 'pointers that lead nowhere');
SELECT is(cqrs_es.redact_event((SELECT global_position FROM cqrs_es.events WHERE aggregate_id = 'given' AND sequence = 2), '{/payload}', 'wanted'), 1::bigint, 'all of one payload');
SELECT is(pg_temp.payloads('given'), '{"name": "erased"} null [null, "x"] {"name": "erased"}', 'of that event alone');
SELECT is((SELECT payload->>'sequence' FROM cqrs_es.read_stream('redacted', 'given', backward => true, max_count => 1)), '2', 'which is named');
SELECT is(cqrs_es.redact_stream('redacted', 'given', '{/metadata}', 'wanted', '{}'), 4::bigint, 'all of the metadata');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('redacted', 'given') WHERE event_type = '$redacted' AND payload ? 'reason'), 4::bigint, 'what we said before stays');

-- what is refused

SELECT is(pg_temp.sqlstate_of('SELECT cqrs_es.' || call), state, call) FROM (VALUES
	($$redact_stream('redacted', 'none', '{/payload/a}', 'r')$$, '42704'),
	($$redact_event(0, '{/payload/a}', 'r')$$, '42704'),
	($$redact_event(NULL, '{/payload/a}', 'r')$$, '22004'),
	($$redact_stream('redacted', 'a', '{/payload/a}', NULL)$$, '22004'),
	($$redact_stream('redacted', 'a', '{/payload/a}', '')$$, '22023'),
	($$redact_stream('redacted', 'a', NULL, 'r')$$, '22004'),
	($$redact_stream('redacted', 'a', '{}', 'r')$$, '22023'),
	($$redact_stream('redacted', 'a', '{NULL}', 'r')$$, '22004'),
	($$redact_stream('redacted', 'a', '{{/payload/a}}', 'r')$$, '2202E'),
	($$redact_stream('redacted', 'a', '{/payload/a}', 'r', NULL)$$, '22004'),
	($$redact_stream('redacted', 'a', '{/event_type}', 'r')$$, '22023'),
	($$redact_stream('redacted', 'a', '{""}', 'r')$$, '22023'),
	($$redact_stream('redacted', 'a', '{payload}', 'r')$$, '22023'),
	($$redact_stream('redacted', 'a', '{/payload/a~2}', 'r')$$, '22023'),
	($$redact_stream('redacted', 'a', '{/metadata}', 'r')$$, '22023'),
	($$append_event('redacted', 'a', '$redacted', '{}')$$, '42939'),
	($$append_events('redacted', 'a', '[{"type": "$x"}]')$$, '42939')) AS t (call, state);
SELECT is(pg_temp.sqlstate_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('redacted', 'a', '$x', '{}')$$), '42939', 'nor by INSERT');
SELECT is(pg_temp.sqlstate_of($$UPDATE cqrs_es.events SET payload = '{}' WHERE aggregate_id = 'a'$$), 'QE004', 'UPDATE is refused as before');
SELECT is(pg_temp.sqlstate_of($$UPDATE cqrs_es.redactions SET reason = 'other'$$), 'QE004', 'and of what was done');
SELECT is(pg_temp.sqlstate_of($$DELETE FROM cqrs_es.redactions$$), 'QE004', 'or its removal');

-- a trigger of the owner that takes the chance
SAVEPOINT s;
CREATE FUNCTION pg_temp.others() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	UPDATE cqrs_es.events SET payload = '{}' WHERE aggregate_id = 'given'; RETURN NEW; END $$;
CREATE TRIGGER a BEFORE UPDATE ON cqrs_es.events FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION pg_temp.others();
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.redact_stream('redacted', 'a', '{/payload/age}', 'r')$$), 'QE004', 'no other row passes meanwhile');
ROLLBACK TO s;
CREATE FUNCTION pg_temp.another() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.event_type := 'x'; RETURN NEW; END $$;
CREATE TRIGGER a BEFORE UPDATE ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION pg_temp.another();
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.redact_stream('redacted', 'a', '{/payload/age}', 'r')$$), 'QE004', 'no other column');
ROLLBACK TO s;
CREATE FUNCTION pg_temp.back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.payload := OLD.payload; RETURN NEW; END $$;
CREATE TRIGGER z BEFORE UPDATE ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION pg_temp.back();
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.redact_stream('redacted', 'a', '{/payload/age}', 'r')$$), '09000', 'and nothing is kept back unnoticed');
ROLLBACK TO s;
SELECT is(pg_temp.sqlstate_of($$UPDATE cqrs_es.events SET payload = '{}' WHERE aggregate_id = 'a' AND sequence = 1$$), 'QE004', 'after an error it is as before, of just that row as well');

-- snapshots

SELECT FROM cqrs_es.take_snapshot('redacted', 'a');
INSERT INTO cqrs_es.snapshots (aggregate_type, aggregate_id, last_sequence, current_snapshot, payload) VALUES ('redacted', 'a', 1, 1, '{"age": 7}'), ('redacted', 'other', 1, 1, '{}');
SELECT is(cqrs_es.redact_stream('redacted', 'a', '{/payload/age}', 'r'), 1::bigint, 'redacted once more');
SELECT is_empty($$SELECT FROM cqrs_es.snapshots WHERE aggregate_type = 'redacted' AND payload ? 'age'$$, 'no snapshot has it, be it a client''s');
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_id = 'other'), 1::bigint, 'those of other streams stay');
SELECT is(cqrs_es.aggregate_state('redacted', 'a'), '{"of": {"a/b": ["x", null]}, "other": 1}', 'the state is that of what is there, without what we append');
-- one that is put back, as by a restore of that table alone
SELECT FROM cqrs_es.take_snapshot('redacted', 'a');
UPDATE cqrs_es.snapshots SET payload = '{"age": 7}', last_sequence = 3 WHERE aggregate_type = 'redacted' AND aggregate_id = 'a' AND fingerprint IS NOT NULL;
SELECT is(cqrs_es.aggregate_state('redacted', 'a'), '{"of": {"a/b": ["x", null]}, "other": 1}', 'a snapshot of before is seen to be one');
SELECT set_eq($$SELECT state FROM cqrs_es.replay('redacted', 'a', 4)$$, $$SELECT cqrs_es.aggregate_state('redacted', 'a')$$, 'in the middle of a replay, too');
SELECT is((SELECT array_agg(sequence) FROM cqrs_es.replay('redacted', 'a', 4, 2)), '{4,5}', 'which gives each event once');

-- undone

SAVEPOINT s;
SELECT FROM cqrs_es.redact_stream('redacted', 'a', '{/payload/other}', 'r');
SELECT is(cqrs_es.aggregate_state('redacted', 'a'), '{"of": {"a/b": ["x", null]}}', 'redacted in a subtransaction');
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('redacted', 'a'), '{"of": {"a/b": ["x", null]}, "other": 1}', 'which is undone');

-- strict types, and types that nobody knows

SELECT FROM cqrs_es.create_aggregate('redacted strict', strict => true);
SELECT FROM cqrs_es.define_reducer('redacted strict', 'named', '[{"op": "set", "path": "/name", "from": "/name"}]'::jsonb);
SELECT FROM cqrs_es.append_event('redacted strict', 'a', 'named', '{"name": "Bob"}');
SELECT is(cqrs_es.redact_stream('redacted strict', 'a', '{/payload/name}', 'r'), 1::bigint, 'a strict type takes our event');
SELECT FROM cqrs_es.append_event('redacted strict', 'a', 'named', '{"name": "New"}');
SELECT is(cqrs_es.aggregate_state('redacted strict', 'a'), '{"name": "New"}', 'and goes on');
SELECT is_empty($$SELECT FROM cqrs_es.unknown_event_types WHERE event_type = '$redacted'$$, 'it is not unknown');
-- among rows that were rolled back, of whose entries the index takes notes while it is read
DO $$ BEGIN FOR i IN 1..400 LOOP
	BEGIN PERFORM cqrs_es.append_event('among the dead', '1', 'Named', '{"name": "Ada"}'); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN END;
	IF i % 4 = 0 THEN PERFORM cqrs_es.append_event('among the dead', '1', 'Named', jsonb_build_object('name', repeat('Ada ', i), 'n', i)); END IF;
END LOOP; END $$;
SELECT is(cqrs_es.redact_stream('among the dead', '1', '{/payload/name}', 'asked for it'), 100::bigint, 'events among rows that were rolled back');
SELECT is((SELECT string_agg(DISTINCT payload->>'name', '') IS NULL AND sum((payload->>'n')::int) = 20200 FROM cqrs_es.read_stream('among the dead', '1') WHERE event_type = 'Named'), true, 'are redacted, each as it was otherwise');
SELECT * FROM finish();
ROLLBACK;
