\i test/include/setup.sql
-- Rules on the log: those that no append could live with are refused when they are created. Nor can it be unlogged.
BEGIN;
SELECT plan(15);
SET LOCAL client_min_messages = warning;
CREATE TABLE log_rules_seen (n bigint);
CREATE TABLE log_rules_other (LIKE cqrs_es.events);
CREATE FUNCTION pg_temp.refused() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT is(pg_temp.error_of(format('CREATE OR REPLACE RULE mine AS ON %s', rule)), ARRAY['0A000', 'cqrs_es.events cannot have rules for INSERT or UPDATE',
		'No event could be appended any more.', 'Use a trigger, or a projection.'], rule)
	FROM unnest(ARRAY['INSERT TO cqrs_es.events DO ALSO INSERT INTO log_rules_seen VALUES (new.sequence)', 'INSERT TO cqrs_es.events WHERE new.sequence > 5 DO INSTEAD NOTHING',
		'UPDATE TO cqrs_es.events DO INSTEAD NOTHING', 'UPDATE TO cqrs_es.events DO ALSO DELETE FROM log_rules_seen']) AS rule
$$;
SELECT pg_temp.refused();
SELECT is((pg_temp.error_of('ALTER TABLE cqrs_es.events SET UNLOGGED'))[1:2], ARRAY['0A000', 'cqrs_es.events cannot be unlogged'], 'it cannot be unlogged');
SELECT is((SELECT count(*) FROM pg_depend WHERE objid = 'cqrs_es.events'::regclass AND deptype = 'e'), 1::bigint, 'and stays what it was');
SELECT is(pg_temp.state_of('CREATE RULE mine AS ON INSERT TO log_rules_other DO ALSO INSERT INTO log_rules_seen VALUES (1)'), 'none', 'another table may have them');
SELECT is(pg_temp.state_of('SET LOCAL client_min_messages = error; CREATE RULE mine AS ON DELETE TO cqrs_es.events DO ALSO DELETE FROM log_rules_seen'), 'none', 'the log those for DELETE');
SELECT is((cqrs_es.append_event('log rules', '1', 'e', '{}')).version, 1::bigint, 'and events are appended');
SELECT is(pg_temp.state_of('DELETE FROM cqrs_es.events'), 'QE004', 'and not deleted');
-- it is no part of the extension any more
SELECT is((SELECT count(*) FROM pg_depend WHERE objid = 'cqrs_es.events'::regclass AND deptype = 'e'), 0::bigint, 'also of a log of its own shape');
SELECT pg_temp.refused() LIMIT 3;
SELECT is(pg_temp.state_of('ALTER TABLE cqrs_es.events SET UNLOGGED'), '0A000', 'nor that be unlogged');
SELECT finish();
ROLLBACK;
