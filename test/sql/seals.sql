\i test/include/setup.sql
-- Seals: what is sealed is found as it was, or it is told what has become of it; each kind of forgery, below the
-- triggers; changes by rule are told from them.  Only what is committed is settled, so the events come before BEGIN.
SELECT count(*) AS x FROM generate_series(1, 200) AS i, LATERAL cqrs_es.append_event('sealed', (i % 3)::text, 'happened',
	jsonb_build_object('n', i, 'price', 1.50, 'minus', -0.001, 'huge', 1e40, 'text', 'Grüße ' || i, 'list', '[1, [], {}, null, true, {"a": {"b": [false, "c"]}}]'::jsonb),
	metadata => jsonb_build_object('correlation', i)) \gset
-- a gap, documents that are kept compressed and elsewhere, that are no objects, and many elements
SELECT nextval('cqrs_es.events_global_position_seq') AS gap \gset
SELECT version AS x FROM cqrs_es.append_event('sealed', 'compressed', 'happened', jsonb_build_object('long', repeat('x', 10000))) \gset
SELECT version AS x FROM cqrs_es.append_event('sealed', 'elsewhere', 'happened', (SELECT jsonb_object_agg('key ' || i, md5(i::text)) FROM generate_series(1, 500) AS i)) \gset
SELECT count(*) AS x FROM unnest(ARRAY['1', 'null', '"text"', '[]', '12345678901234567890.000']::jsonb[]) AS d, LATERAL cqrs_es.append_event('sealed', 'scalars', 'happened', d) \gset
SELECT count(*) AS x FROM generate_series(1, 400) AS i, LATERAL cqrs_es.append_event('sealed', 'more', 'happened', jsonb_build_object('n', i)) \gset
SET cqrs_es.tenant_id = 'acme';
SELECT version AS x FROM cqrs_es.append_event('sealed', 'of a tenant', 'happened', '{}') \gset
RESET cqrs_es.tenant_id;

BEGIN;
SELECT plan(149);
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.seals;
DELETE FROM cqrs_es.seal_blocks;
DELETE FROM cqrs_es.event_changes;
SET LOCAL session_replication_role = origin;

-- what other tests have left
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.events WHERE aggregate_type <> 'sealed';
SET LOCAL session_replication_role = origin;
CREATE TEMP TABLE log AS SELECT row_number() OVER (ORDER BY global_position)::int AS n, * FROM cqrs_es.events;
CREATE FUNCTION pg_temp.at(n int) RETURNS bigint LANGUAGE sql AS 'SELECT global_position FROM log WHERE log.n = $1';
SELECT is((SELECT count(*) FROM log), 608::bigint, 'there are some events');

-- making seals
SELECT is_empty('SELECT * FROM cqrs_es.verify_seals(1, NULL) WHERE problem IS NULL', 'no seal, nothing verified');
SELECT results_eq('SELECT seal, events, found, problem, detail FROM cqrs_es.verify_seals()', $$VALUES (NULL::bigint, NULL::bigint, 608::bigint, NULL::text, 'not sealed yet')$$,
	'what is not sealed is told');
SELECT results_eq(format('SELECT seal, after_position, up_to_position, events, changes, sealed_by, previous_digest FROM cqrs_es.seal(%s)', pg_temp.at(300)),
	format($$VALUES (1::bigint, 0::bigint, %s::bigint, 300::bigint, 0::bigint, current_user::text, decode(repeat('00', 32), 'hex'))$$, pg_temp.at(300)), 'a seal up to a position');
SELECT results_eq('SELECT seal, after_position, up_to_position, events FROM cqrs_es.seal()',
	format('VALUES (2::bigint, %s::bigint, %s::bigint, 308::bigint)', pg_temp.at(300), pg_temp.at(608)), 'and one of the rest');
SELECT is((SELECT b.previous_digest FROM cqrs_es.seals AS b WHERE b.seal = 2), (SELECT a.digest FROM cqrs_es.seals AS a WHERE a.seal = 1), 'covers the one before');
SELECT results_eq('SELECT s.* FROM cqrs_es.seal() AS s', 'SELECT s.* FROM cqrs_es.seals AS s WHERE s.seal = 2', 'where there is nothing new the newest is returned');
SELECT results_eq('SELECT s.* FROM cqrs_es.seal(1) AS s', 'SELECT s.* FROM cqrs_es.seals AS s WHERE s.seal = 2', 'also below what is sealed');
SELECT results_eq('SELECT seal, events FROM cqrs_es.seal_blocks ORDER BY seal, up_to_position', 'VALUES (1::bigint, 256::bigint), (1, 44), (2, 256), (2, 52)', 'in blocks');
SELECT is(length(digest), 32, 'the digest') FROM cqrs_es.seals WHERE seal = 1;
SELECT results_eq('SELECT seal, events, found, redacted, removed, problem, detail FROM cqrs_es.verify_seals()',
	$$VALUES (1::bigint, 300::bigint, 300::bigint, 0::bigint, 0::bigint, NULL::text, NULL::text), (2, 308, 308, 0, 0, NULL, NULL)$$, 'all is as it was');
SELECT results_eq('SELECT seal FROM cqrs_es.verify_seals(2)', 'VALUES (2::bigint)', 'from a seal');
SELECT results_eq('SELECT seal FROM cqrs_es.verify_seals(to_seal => 1)', 'VALUES (1::bigint)', 'up to one');
SELECT results_eq('SELECT seal, problem FROM cqrs_es.verify_seals(2, 3)', $$VALUES (3::bigint, 'missing seal'), (2, NULL)$$, 'one that is not there is told');
SELECT results_eq('SELECT seal, problem FROM cqrs_es.verify_seals(3, 3)', $$VALUES (3::bigint, 'missing seal')$$, 'once');

-- the other path gives the same digests: there documents are taken apart, and turned where they have to be
SELECT set_config('cqrs_es.force_generic_path', CASE current_setting('cqrs_es.force_generic_path') WHEN 'on' THEN 'off' ELSE 'on' END, true) AS x \gset
SELECT is_empty('SELECT * FROM cqrs_es.verify_seals() WHERE problem IS NOT NULL', 'the other path finds the same');
SELECT set_config('cqrs_es.force_generic_path', CASE current_setting('cqrs_es.force_generic_path') WHEN 'on' THEN 'off' ELSE 'on' END, true) AS x \gset

-- refusals
SELECT is(pg_temp.error_of(format('SELECT * FROM cqrs_es.seal(%s)', pg_temp.at(608) + 1)),
	ARRAY['55000', format('position %s is not settled', pg_temp.at(608) + 1), format('The last settled event is at position %s.', pg_temp.at(608)), ''], 'what is not settled is not sealed');
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.seal(-1)'), '22023', 'no position');
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.seal((3::bigint << 44) + 1)'), '22023', 'a position of another node');
SELECT cqrs_es.append_event('sealed', 'own', 'happened', '{}') IS NULL AS x \gset
SELECT is((SELECT s.seal FROM cqrs_es.seal() AS s), 2::bigint, 'own events of the transaction are not settled');
SELECT is((SELECT v.found FROM cqrs_es.verify_seals() AS v WHERE v.seal IS NULL), 1::bigint, 'nor sealed');
\set statements 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM cqrs_es.seal(); ROLLBACK; BEGIN READ ONLY; SELECT * FROM cqrs_es.seal(); ROLLBACK; BEGIN READ ONLY; SELECT cqrs_es.note_change(NULL, NULL, NULL); ROLLBACK'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  25001\nERROR:  25006\nERROR:  25006', 'with an old snapshot, and where nothing can be written');
SELECT throws_ok('UPDATE cqrs_es.seals SET sealed_by = sealed_by', 'QE004', NULL, 'seals are not changed');
SELECT throws_ok('DELETE FROM cqrs_es.seal_blocks', 'QE004', NULL, 'nor blocks');
SELECT throws_ok('TRUNCATE cqrs_es.event_changes', 'QE004', NULL, 'nor changes');

-- What verify_seals() finds after a change below the triggers, and that this is as before when it is undone.
CREATE FUNCTION pg_temp.found(change text, columns text DEFAULT 'seal, problem') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	BEGIN
		SET LOCAL session_replication_role = replica;
		EXECUTE change;
		EXECUTE format($q$SELECT coalesce(string_agg(concat_ws(' ', %s), ', ' ORDER BY o), 'nothing') FROM ROWS FROM (cqrs_es.verify_seals()) WITH ORDINALITY
			AS v (seal, after_position, up_to_position, events, found, redacted, removed, problem, detail, o) WHERE problem IS NOT NULL$q$, columns) INTO found;
		RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000';
	EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
		RETURN found;
	END;
END $$;
CREATE FUNCTION pg_temp.set_at(n int, change text) RETURNS text LANGUAGE sql AS $$
	SELECT format('UPDATE cqrs_es.events SET %s WHERE global_position = %s', change, pg_temp.at(n))
$$;

-- altered
SELECT is(pg_temp.found(pg_temp.set_at(10, c)), '1 altered', 'altered: ' || c)
FROM unnest(ARRAY['payload = ''{}''', $c$payload = jsonb_set(payload, '{n}', '11')$c$, $c$payload = jsonb_set(payload, '{price}', '1.5')$c$, 'metadata = ''{}''', 'sequence = sequence + 1000',
	$c$created_at = created_at + '1 us'$c$, 'event_id = gen_random_uuid()', $c$tenant_id = 'acme'$c$, $c$aggregate_type = 'seal'$c$, $c$aggregate_id = aggregate_id || 'x'$c$,
	$c$event_type = 'happene'$c$, $c$event_version = '2'$c$, 'payload = metadata, metadata = payload']) AS c;
SELECT is(pg_temp.found(pg_temp.set_at(201, $c$payload = jsonb_build_object('long', repeat('x', 9999) || 'y')$c$)), '1 altered', 'altered: compressed');
SELECT is(pg_temp.found(pg_temp.set_at(203, $c$aggregate_type = 'sealeds', aggregate_id = 'calars'$c$)), '1 altered', 'altered: the stream, by a letter from here to there');
SELECT is(pg_temp.found(pg_temp.set_at(202, $c$payload = '{}'$c$), 'seal, after_position, up_to_position, events, found, detail'),
	format('1 0 %s 256 256 events are not what was sealed', pg_temp.at(256)), 'and in which range');
SELECT is(pg_temp.found(pg_temp.set_at(10, 'payload = ''{}''') || ';' || pg_temp.set_at(290, 'payload = ''{}'''), 'seal, after_position, up_to_position, problem'),
	format('1 0 %s altered', pg_temp.at(300)), 'ranges that join each other are one');
SELECT is(pg_temp.found(pg_temp.set_at(10, 'payload = ''{}''') || ';' || pg_temp.set_at(607, 'payload = ''{}'''), 'seal, events, problem'), '1 256 altered, 2 52 altered', 'others are not');
SELECT is(pg_temp.found('ALTER TABLE cqrs_es.events ALTER payload DROP NOT NULL; UPDATE cqrs_es.events SET payload = NULL WHERE global_position = ' || pg_temp.at(10)
	|| $$; UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 'cqrs_es.events'::regclass AND attname = 'payload'$$), '1 altered', 'a null, by a forged catalog');
SELECT is(pg_temp.found('ALTER TABLE cqrs_es.events ADD COLUMN own int DEFAULT 1'), 'nothing', 'a column of the owner is no part of an event');
SELECT is(pg_temp.found('ALTER TABLE cqrs_es.events DROP COLUMN metadata; ALTER TABLE cqrs_es.events ADD COLUMN metadata jsonb NOT NULL DEFAULT ''{}'''), '1 altered', 'nor is the place of one of ours');

-- swapped
SELECT is(pg_temp.found('UPDATE cqrs_es.events AS e SET payload = o.payload FROM log AS o WHERE (e.global_position, o.n) IN ((pg_temp.at(20), 21), (pg_temp.at(21), 20))'), '1 altered', 'contents swapped');
SELECT is(pg_temp.found('UPDATE cqrs_es.events AS e SET global_position = o.global_position FROM log AS o WHERE (e.global_position, o.n) IN ((pg_temp.at(20), 580), (pg_temp.at(580), 20))', 'seal, problem, found'),
	'1 altered 256, 2 altered 52', 'places swapped');

-- removed
SELECT is(pg_temp.found('DELETE FROM cqrs_es.events WHERE global_position = ' || pg_temp.at(n), 'seal, problem, events, found, detail'), seal || ' removed ' || events || ' ' || events - 1 || ' 1 events are missing', 'removed: ' || n)
FROM (VALUES (1, 1, 256), (256, 1, 256), (257, 1, 44), (300, 1, 44), (301, 2, 256), (608, 2, 52)) AS r (n, seal, events);
SELECT is(pg_temp.found('DELETE FROM cqrs_es.events', 'seal, problem, events, found'), '1 removed 300 0, 2 removed 308 0', 'removed: all');
SELECT is(pg_temp.found(format('UPDATE cqrs_es.events SET global_position = %s WHERE global_position = %s', :gap, pg_temp.at(608)), 'seal, problem, events, found'),
	'1 inserted 256 257, 2 removed 52 51', 'moved into a gap');
SELECT is(pg_temp.found(pg_temp.set_at(5, 'global_position = global_position + 100000')), '1 removed', 'moved behind the last seal');
SELECT is(pg_temp.found(pg_temp.set_at(5, 'global_position = -7'), 'seal, problem, after_position, found'), '1 removed 0 255, outside -8 1', 'moved below the first position');
SELECT is(pg_temp.found(pg_temp.set_at(5, 'global_position = (77::bigint << 44) + 3'), 'seal, problem, found'), '1 removed 255, outside 1', 'moved to a node that has no seals');

-- inserted
CREATE FUNCTION pg_temp.insert_at(at bigint, more text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT format($q$INSERT INTO cqrs_es.events (global_position, sequence, created_at, aggregate_type, aggregate_id, event_type, payload) SELECT %s, i, now(), 'sealed', 'forged', 'happened', '{}' FROM generate_series(1, 1) AS i %s$q$, at, more)
$$;
SELECT is(pg_temp.found(pg_temp.insert_at(:gap), 'seal, problem, events, found, detail'), '1 inserted 256 257 1 events were not there', 'inserted into a gap');
SELECT is(pg_temp.found(pg_temp.insert_at(pg_temp.at(300)), 'seal, problem, events, found'), '1 inserted 44 45', 'inserted beside another');
SELECT is(pg_temp.found(pg_temp.insert_at(pg_temp.at(1) - 1)), CASE WHEN pg_temp.at(1) > 1 THEN '1 inserted' ELSE 'outside' END, 'inserted before the first');
SELECT is(pg_temp.found(pg_temp.insert_at(0)), 'outside', 'inserted at 0');
SELECT is(pg_temp.found(pg_temp.insert_at(9223372036854775807)), 'outside', 'inserted at the greatest position of all');
SELECT is(pg_temp.found(replace(pg_temp.insert_at(:gap), 'series(1, 1)', 'series(1, 5000)'), 'seal, problem, events, found'), '1 inserted 256 5256', 'thousands inserted at one position');
SELECT is(pg_temp.found(pg_temp.insert_at(:gap) || '; DELETE FROM cqrs_es.events WHERE global_position = ' || pg_temp.at(3)), '1 altered', 'one for another');
SELECT is(pg_temp.found(pg_temp.insert_at(pg_temp.at(608) + 1000)), 'nothing', 'what comes later is nobody''s business');

-- seals
SELECT is(pg_temp.found('UPDATE cqrs_es.seals SET ' || c || ' WHERE seal = 1'), f, 'seals: ' || c)
FROM (VALUES ('after_position = -5', '1 altered seal, 1 altered seal'), ('up_to_position = up_to_position - 1', '1 altered seal, 2 altered seal'), ('events = 299', '1 altered seal'),
	('changes = 1', '1 altered changes, 1 altered seal'), ('changes_digest = digest', '1 altered changes, 1 altered seal'), ('sealed_at = sealed_at - interval ''1 us''', '1 altered seal'),
	('sealed_by = ''x''', '1 altered seal'), ('previous_digest = digest', '1 altered seal, 1 altered seal'), ('digest = previous_digest', '1 altered seal, 2 altered seal'),
	('digest = ''\x''', '1 altered seal, 2 altered seal')) AS r (c, f);
SELECT is(pg_temp.found('DELETE FROM cqrs_es.seals WHERE seal = 1', 'seal, problem, detail'), '2 missing seal the seal before it is not there', 'a seal was removed');
SELECT is(pg_temp.found('UPDATE cqrs_es.seals SET seal = 3 WHERE seal = 2'), '3 missing seal, 3 inserted, 3 altered seal', 'has another number');
SELECT is(pg_temp.found('DELETE FROM cqrs_es.seals WHERE seal = 2'), 'nothing', 'of the last one only who knows of it can tell ...');
SELECT results_eq('SELECT seal, problem FROM cqrs_es.verify_seals(to_seal => 3) WHERE problem IS NOT NULL', $$VALUES (3::bigint, 'missing seal')$$, '... and does, by its number');
SELECT is(pg_temp.found('UPDATE cqrs_es.seal_blocks SET digest = sha256(digest) WHERE (seal, events) = (2, 52)'), '2 altered, 2 altered seal', 'a block was altered');
SELECT is(pg_temp.found('DELETE FROM cqrs_es.seal_blocks WHERE (seal, events) = (2, 52)'), '2 inserted, 2 altered seal', 'the last block was removed');
SELECT is(pg_temp.found('DELETE FROM cqrs_es.seal_blocks WHERE (seal, events) = (2, 256)'), '2 inserted, 2 altered seal', 'the first one was');
SELECT is(pg_temp.found(pg_temp.set_at(10, 'payload = ''{}''') || '; DELETE FROM cqrs_es.seals; DELETE FROM cqrs_es.seal_blocks; SELECT cqrs_es.seal()'), 'nothing',
	'who makes all of it anew is not found here');
SELECT is(pg_temp.found(pg_temp.set_at(10, 'payload = ''{}''') || '; CREATE TEMP TABLE published AS SELECT * FROM cqrs_es.seals; DELETE FROM cqrs_es.seals; DELETE FROM cqrs_es.seal_blocks;
	SELECT cqrs_es.seal(' || pg_temp.at(300) || '); SELECT cqrs_es.seal(); UPDATE cqrs_es.seals AS s SET digest = p.digest FROM published AS p WHERE p.seal = 2 AND s.seal = 2'), '2 altered seal',
	'but does not come to the digest that was published');

SELECT is(pg_temp.found(format('DELETE FROM cqrs_es.seals; DELETE FROM cqrs_es.seal_blocks; SELECT cqrs_es.seal(%1$s); SELECT cqrs_es.seal(%1$s); SELECT cqrs_es.seal(); %2$s', :gap, pg_temp.insert_at(:gap)),
	'seal, problem, up_to_position - after_position'), '1 inserted ' || :gap, 'a seal may end in a gap, which is its then');

SELECT is(pg_temp.found('DELETE FROM cqrs_es.seals; DELETE FROM cqrs_es.seal_blocks;' || pg_temp.insert_at(pg_temp.at(40)) || '; SELECT cqrs_es.seal();
	UPDATE cqrs_es.events SET global_position = -1 WHERE global_position = pg_temp.at(40) AND aggregate_id <> ''forged''; UPDATE cqrs_es.events SET global_position = pg_temp.at(40) WHERE global_position = -1'),
	'nothing', 'events that share a position have no order');

-- changes by rule
CREATE FUNCTION pg_temp.event(n int, payload jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL) RETURNS cqrs_es.event LANGUAGE sql AS $$
	SELECT (e.global_position, e.sequence, e.created_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id, e.event_type, e.event_version,
		coalesce($2, e.payload), coalesce($3, e.metadata))::cqrs_es.event FROM cqrs_es.events AS e WHERE e.global_position = pg_temp.at($1)
$$;
CREATE FUNCTION pg_temp.redact(n int, payload jsonb, reason text DEFAULT 'law') RETURNS boolean LANGUAGE sql AS $$
	SELECT cqrs_es.note_change(pg_temp.event($1), pg_temp.event($1, $2, '{}'), $3);
	UPDATE cqrs_es.events SET payload = $2, metadata = '{}' WHERE global_position = pg_temp.at($1) RETURNING true;
$$;
CREATE FUNCTION pg_temp.remove(n int) RETURNS boolean LANGUAGE sql AS $$
	SELECT cqrs_es.note_change(pg_temp.event($1), NULL, 'gone');
	DELETE FROM cqrs_es.events WHERE global_position = pg_temp.at($1) RETURNING true;
$$;
SELECT is(pg_temp.found($$SELECT pg_temp.redact(10, '{"name": null}')$$), 'nothing', 'redacted by rule');
SELECT is(pg_temp.found($$SELECT pg_temp.remove(10), pg_temp.remove(11), pg_temp.remove(608)$$), 'nothing', 'removed by rule');
SELECT is(pg_temp.found($$SELECT pg_temp.redact(10, '1'), pg_temp.redact(10, '2'), pg_temp.remove(10), pg_temp.redact(11, '1'), pg_temp.redact(11, '2')$$), 'nothing', 'several times');
SELECT is(pg_temp.found(c), f, 'forged: ' || c) FROM (VALUES
	($$SELECT pg_temp.redact(10, '1'); DELETE FROM cqrs_es.event_changes$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.events SET payload = '2' WHERE global_position = pg_temp.at(10); SELECT pg_temp.redact(10, '3')$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.events SET payload = '2' WHERE global_position = pg_temp.at(10)$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.events AS e SET payload = o.payload, metadata = o.metadata FROM log AS o WHERE o.n = 10 AND o.global_position = e.global_position$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.events SET created_at = created_at - interval '1 h' WHERE global_position = pg_temp.at(10)$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.event_changes SET content_before = content_after$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.event_changes SET content_after = content_before$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.event_changes SET content_after = NULL$$, '1 inserted'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.event_changes SET after_seal = 1$$, '2 altered changes'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.event_changes SET after_seal = 0$$, '1 altered changes, 1 altered'),
	($$SELECT pg_temp.redact(10, '1'); UPDATE cqrs_es.event_changes SET global_position = pg_temp.at(11)$$, '1 altered'),
	($$SELECT pg_temp.redact(10, '1'); DELETE FROM cqrs_es.events WHERE global_position = pg_temp.at(10)$$, '1 removed'),
	($$SELECT pg_temp.redact(10, '1'); DELETE FROM cqrs_es.events WHERE global_position = pg_temp.at(11)$$, '1 removed'),
	($$SELECT pg_temp.remove(10); DELETE FROM cqrs_es.event_changes$$, '1 removed'),
	($$SELECT pg_temp.remove(10); INSERT INTO cqrs_es.events (global_position, sequence, created_at, event_id, aggregate_type, aggregate_id, event_type, payload, metadata)
		SELECT global_position, sequence, created_at, event_id, aggregate_type, aggregate_id, event_type, payload, metadata FROM log WHERE n = 10$$, '1 inserted'),
	($$SELECT pg_temp.remove(10); UPDATE cqrs_es.event_changes SET event_before = content_before$$, '1 altered'),
	($$SELECT pg_temp.remove(10); UPDATE cqrs_es.event_changes SET content_after = content_before$$, '1 removed')) AS r (c, f);
SET LOCAL session_replication_role = replica;
SELECT is(pg_temp.redact(10, '{"name": null}'), true, 'a change that stays');
SELECT results_eq('SELECT seal, events, found, redacted, removed, problem FROM cqrs_es.verify_seals(1, 1)', $$VALUES (1::bigint, 300::bigint, 300::bigint, 1::bigint, 0::bigint, NULL::text)$$, 'is told');
SELECT results_eq('SELECT global_position, number, after_seal, changed_by, reason FROM cqrs_es.event_changes',
	$$SELECT pg_temp.at(10), 1, 2::bigint, current_user::text COLLATE "C", 'law' COLLATE "C"$$, 'and recorded');
SELECT is((SELECT count(*) FROM cqrs_es.event_changes AS c WHERE c::text ~ 'price|correlation'), 0::bigint, 'without the data');
SELECT results_eq('SELECT seal, after_position, up_to_position, events, changes FROM cqrs_es.seal()', $$SELECT 3::bigint, pg_temp.at(608), pg_temp.at(608), 0::bigint, 1::bigint$$, 'it is sealed, too');
SELECT is((SELECT s.seal FROM cqrs_es.seal() AS s), 3::bigint, 'once');
SELECT results_eq('SELECT seal, redacted, problem FROM cqrs_es.verify_seals()', $$VALUES (1::bigint, 1::bigint, NULL::text), (2, 0, NULL), (3, 0, NULL), (NULL, 0, NULL)$$, 'as it was');
SELECT is(pg_temp.found(c), f, 'forged, sealed: ' || c) FROM (VALUES
	('DELETE FROM cqrs_es.event_changes', '1 altered, 3 altered changes'),
	('UPDATE cqrs_es.event_changes SET reason = ''none''', '3 altered changes'),
	('UPDATE cqrs_es.event_changes SET changed_by = ''nobody''', '3 altered changes'),
	('UPDATE cqrs_es.event_changes SET changed_at = changed_at - interval ''1 us''', '3 altered changes'),
	('UPDATE cqrs_es.event_changes SET number = 2', '3 altered changes'),
	('UPDATE cqrs_es.event_changes SET after_seal = 3', '3 altered changes'),
	('SELECT pg_temp.redact(20, ''1''); UPDATE cqrs_es.event_changes SET after_seal = 2', '3 altered changes'),
	('SELECT pg_temp.redact(20, ''1'')', 'nothing'), ('SELECT pg_temp.redact(10, ''1'')', 'nothing'), ('SELECT pg_temp.remove(10)', 'nothing')) AS r (c, f);

-- what is changed by rule before it is sealed is sealed as it is then
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.seals WHERE seal > 1;
DELETE FROM cqrs_es.seal_blocks WHERE seal > 1;
DELETE FROM cqrs_es.event_changes;
SELECT is(cqrs_es.note_change(pg_temp.event(400), pg_temp.event(400, '7'), 'law'), false, 'not sealed: no need of a note');
SELECT is((SELECT count(*) FROM cqrs_es.event_changes), 0::bigint, 'so there is none');
UPDATE cqrs_es.events SET payload = '7' WHERE global_position = pg_temp.at(400);
SELECT is((SELECT s.changes FROM cqrs_es.seal() AS s), 0::bigint, 'nothing to seal of it');
SELECT is(pg_temp.found('SELECT 1'), '1 altered', 'that one was not changed by rule, as far as is known');
SELECT is(pg_temp.found(pg_temp.set_at(400, 'payload = ''8''')), '1 altered, 2 altered', 'and this one is sealed');
SELECT is(pg_temp.error_of('SELECT cqrs_es.note_change(pg_temp.event(1), pg_temp.event(2), ''law'')', '{state,message}'), ARRAY['22023', 'an event cannot become another one'], 'a change of anything else');
SELECT is(pg_temp.error_of('SELECT cqrs_es.note_change(pg_temp.event(1, ''1''), NULL, ''law'')', '{state,message}'),
	ARRAY['22023', 'the event before the change is not what is in the log at position ' || pg_temp.at(1)], 'of an event that is not so in the log');
SELECT is(pg_temp.state_of('SELECT cqrs_es.note_change(NULL, pg_temp.event(2), ''law'')'), '22004', 'no event');
SELECT is(pg_temp.state_of('SELECT cqrs_es.note_change(pg_temp.event(1), NULL, NULL)'), '22004', 'no reason');
SELECT is(pg_temp.state_of('SELECT cqrs_es.note_change((NULL, 1, now(), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), NULL, ''law'')'), '22004', 'no whole event');

-- each node has seals of its own
SELECT pg_temp.at(608) AS last \gset
SET LOCAL cqrs_es.node_id = 9;
SELECT is((SELECT count(*) FROM cqrs_es.seal()), 0::bigint, 'a node without events');
INSERT INTO cqrs_es.events (global_position, sequence, created_at, aggregate_type, aggregate_id, event_type, payload) VALUES ((9::bigint << 44) + 5, 1, now(), 'sealed', 'at a node', 'happened', '{}');
SELECT results_eq('SELECT seal, after_position, up_to_position, events FROM cqrs_es.seal()', 'VALUES ((9::bigint << 44) + 1, 9::bigint << 44, (9::bigint << 44) + 5, 1::bigint)', 'another node');
SET LOCAL cqrs_es.node_id = 0;
SELECT results_eq('SELECT seal, found FROM cqrs_es.verify_seals((9::bigint << 44) + 1)', 'VALUES ((9::bigint << 44) + 1, 1::bigint)', 'is verified anywhere');
SELECT is(pg_temp.found('DELETE FROM cqrs_es.events WHERE aggregate_id = ''at a node'''), '1 altered, ' || (9::bigint << 44) + 1 || ' removed', 'with what is at it');
SELECT is(pg_temp.found('UPDATE cqrs_es.events SET global_position = global_position + 1000 WHERE aggregate_id = ''at a node''; DELETE FROM cqrs_es.seals WHERE seal > 5; DELETE FROM cqrs_es.seal_blocks WHERE seal > 5'),
	'1 altered, outside', 'whose events are nobody''s without seals');
DELETE FROM cqrs_es.events WHERE aggregate_id = 'at a node';
SET LOCAL session_replication_role = origin;

-- rights: of whoever is granted to execute them, over all tenants; not a part of the log, where row security is forced
CREATE ROLE sealer;
GRANT USAGE ON SCHEMA cqrs_es TO sealer;
SELECT is(pg_temp.state_of($$SELECT pg_temp.as_role('sealer', 'SELECT * FROM cqrs_es.seal()')$$), '42501', 'seal() is the owner''s');
SELECT is(pg_temp.state_of($$SELECT pg_temp.as_role('sealer', 'SELECT * FROM cqrs_es.verify_seals()')$$), '42501', 'so is verify_seals()');
SELECT is(pg_temp.state_of($$SELECT pg_temp.as_role('sealer', 'SELECT cqrs_es.note_change(NULL, NULL, NULL)')$$), '42501', 'and note_change()');
SELECT is(pg_temp.state_of($$SELECT pg_temp.as_role('sealer', 'SELECT * FROM cqrs_es.seals')$$), '42501', 'and the table');
GRANT EXECUTE ON FUNCTION cqrs_es.seal, cqrs_es.verify_seals TO sealer;
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.seals;
DELETE FROM cqrs_es.seal_blocks;
SET LOCAL session_replication_role = origin;
SET LOCAL ROLE sealer;
SELECT results_eq('SELECT seal, events, sealed_by FROM cqrs_es.seal()', $$VALUES (1::bigint, 608::bigint, 'sealer' COLLATE "C")$$, 'who may execute it seals all tenants');
SELECT results_eq('SELECT seal, found FROM cqrs_es.verify_seals() WHERE seal = 1', 'VALUES (1::bigint, 608::bigint)', 'and verifies');
RESET ROLE;
CREATE ROLE log_owner;
GRANT USAGE, CREATE ON SCHEMA cqrs_es TO log_owner;
ALTER TABLE cqrs_es.events OWNER TO log_owner;
SELECT results_eq('SELECT seal, found FROM cqrs_es.verify_seals() WHERE seal = 1', 'VALUES (1::bigint, 608::bigint)', 'a log of another owner');
ALTER TABLE cqrs_es.events FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON cqrs_es.events AS RESTRICTIVE USING (aggregate_id = '1');
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.verify_seals()'), '42501', 'not a part of it');
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.seal()'), '42501', 'nor a seal of one');
SELECT * FROM finish();
ROLLBACK;
