\i test/include/setup.sql
-- What is sealed and then redacted by rule is told from a forgery: verify_seals() counts it, finds nothing wrong, and
-- finds what is changed afterwards.  Only what is committed is settled, so the events come before BEGIN.
SELECT count(*) AS x FROM generate_series(1, 5) AS i, LATERAL cqrs_es.append_event('sealed and redacted', '1', 'Moved',
	jsonb_build_object('n', i, 'address', 'Street ' || i), metadata => '{"by": "Ada"}') \gset
BEGIN;
SELECT plan(11);
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.seals;
DELETE FROM cqrs_es.seal_blocks;
DELETE FROM cqrs_es.event_changes;
DELETE FROM cqrs_es.events WHERE aggregate_type <> 'sealed and redacted';
SET LOCAL session_replication_role = origin;
CREATE FUNCTION pg_temp.verified() RETURNS TABLE(seal bigint, found bigint, redacted bigint, problem text) LANGUAGE sql AS
	'SELECT seal, found, redacted, problem FROM cqrs_es.verify_seals() WHERE seal IS NOT NULL';

SELECT is((SELECT events FROM cqrs_es.seal()), 5::bigint, 'events are sealed');
SELECT is(cqrs_es.redact_stream('sealed and redacted', '1', '{/payload/address}', 'asked for it'), 5::bigint, 'and redacted');
SELECT results_eq('SELECT * FROM pg_temp.verified()', 'VALUES (1::bigint, 5::bigint, 5::bigint, NULL::text)', 'which is told, and is no problem');
SELECT is((SELECT array_agg(DISTINCT reason) FROM cqrs_es.event_changes), '{asked for it}', 'with its reason');
SELECT is(cqrs_es.redact_event((SELECT global_position FROM cqrs_es.read_stream('sealed and redacted', '1', 2, 1)), '{/payload/n, /metadata/by}', 'once more', '"gone"'), 1::bigint, 'one is redacted again');
SELECT results_eq('SELECT * FROM pg_temp.verified()', 'VALUES (1::bigint, 5::bigint, 5::bigint, NULL::text)', 'by rule as well');
SELECT is((SELECT count(*) FROM cqrs_es.event_changes), 6::bigint, 'each change is noted, that of a redaction itself is not: it is not sealed yet');

SAVEPOINT undone;
SELECT cqrs_es.redact_stream('sealed and redacted', '1', '{/payload/n}', 'a mistake') AS x \gset
ROLLBACK TO undone;
SELECT is((SELECT count(*) FROM cqrs_es.event_changes), 6::bigint, 'what is undone leaves no note');
SELECT results_eq('SELECT * FROM pg_temp.verified()', 'VALUES (1::bigint, 5::bigint, 5::bigint, NULL::text)', 'and all is as before');

SET LOCAL session_replication_role = replica;
UPDATE cqrs_es.events SET payload = payload || '{"address": "forged"}' WHERE sequence = 3;
SET LOCAL session_replication_role = origin;
SELECT is((SELECT problem FROM pg_temp.verified()), 'altered', 'a forgery of what was redacted is found');
SET LOCAL session_replication_role = replica;
UPDATE cqrs_es.events SET payload = payload || '{"address": null}' WHERE sequence = 3;
DELETE FROM cqrs_es.event_changes WHERE reason = 'once more';
SET LOCAL session_replication_role = origin;
SELECT is((SELECT problem FROM pg_temp.verified()), 'altered', 'and a redaction whose note is gone is one');
SELECT * FROM finish();
ROLLBACK;
