\i test/include/setup.sql
-- The log, the other tables of the extension and its schema are found by their names: they
-- keep them, and nothing inherits from them.  What a dump would have as the extension
-- makes it is told when it is changed, or makes the log a table of its own.
BEGIN;
SELECT plan(32);
CREATE SCHEMA keep_place;

-- what comes of a statement: an error, or whether the log is a table of its own then
CREATE FUNCTION pg_temp.is_own() RETURNS boolean LANGUAGE sql AS $$ SELECT to_regprocedure('cqrs_es.log_is_own()') IS NOT NULL $$;
CREATE FUNCTION pg_temp.said(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	own boolean;
BEGIN
	BEGIN
		EXECUTE statement;
		own := pg_temp.is_own();
		RAISE EXCEPTION 'undo' USING ERRCODE = 'P0042';
	EXCEPTION WHEN SQLSTATE 'P0042' THEN
		RETURN CASE WHEN own THEN 'own' ELSE 'as it was' END;
	END;
EXCEPTION WHEN OTHERS THEN
	RETURN concat(SQLSTATE, ' ', SQLERRM);
END $$;

SELECT is(pg_temp.said(statement), message, statement) FROM (VALUES
	('ALTER TABLE cqrs_es.events RENAME TO evts', '0A000 cqrs_es.evts cannot have another name or schema, since extension cqrs_es finds it by them'),
	('ALTER TABLE cqrs_es.events SET SCHEMA public', '0A000 public.events cannot have another name or schema, since extension cqrs_es finds it by them'),
	('ALTER TABLE cqrs_es.projections RENAME TO other', '0A000 cqrs_es.other cannot have another name or schema, since extension cqrs_es finds it by them'),
	('ALTER TABLE cqrs_es.snapshots SET SCHEMA keep_place', '0A000 keep_place.snapshots cannot have another name or schema, since extension cqrs_es finds it by them'),
	('ALTER SEQUENCE cqrs_es.events_global_position_seq RENAME TO s', '0A000 cqrs_es.s cannot have another name or schema, since extension cqrs_es finds it by them'),
	('ALTER SEQUENCE cqrs_es.log_number_seq SET SCHEMA keep_place', '0A000 keep_place.log_number_seq cannot have another name or schema, since extension cqrs_es finds it by them'),
	('ALTER SCHEMA cqrs_es RENAME TO es', '0A000 schema cqrs_es cannot be renamed, since extension cqrs_es looks for its tables there'),
	('CREATE TABLE keep_place.kid () INHERITS (cqrs_es.events)', '0A000 table keep_place.kid cannot inherit from cqrs_es.events'),
	('CREATE TABLE keep_place.kid () INHERITS (cqrs_es.handlers)', '0A000 table keep_place.kid cannot inherit from cqrs_es.handlers'),
	('CREATE TEMP TABLE kid () INHERITS (cqrs_es.events)', '0A000 table kid cannot inherit from cqrs_es.events'),
	('CREATE SCHEMA beside CREATE TABLE kid () INHERITS (cqrs_es.events)', '0A000 table beside.kid cannot inherit from cqrs_es.events'),
	('CREATE TABLE keep_place.kid (LIKE cqrs_es.events INCLUDING ALL); ALTER TABLE keep_place.kid INHERIT cqrs_es.events', '0A000 table keep_place.kid cannot inherit from cqrs_es.events'),
	('SELECT cqrs_es.own_log(); CREATE TABLE keep_place.kid () INHERITS (cqrs_es.events)', '0A000 table keep_place.kid cannot inherit from cqrs_es.events'),
	-- other people's
	('CREATE SCHEMA other; ALTER SCHEMA other RENAME TO another', 'as it was'),
	('CREATE TABLE keep_place.base (n int); CREATE TABLE keep_place.kid () INHERITS (keep_place.base); ALTER TABLE keep_place.base RENAME TO root; ALTER TABLE keep_place.root SET SCHEMA public', 'as it was'),
	('ALTER SCHEMA cqrs_es OWNER TO CURRENT_USER', 'as it was'),
	-- what dumps have not of the extension's log, they have of one's own
	('DROP POLICY tenant_isolation ON cqrs_es.events', 'own'),
	('DROP TRIGGER dispatch_event ON cqrs_es.events', 'own'),
	('DROP INDEX cqrs_es.events_global_position_idx', 'own'),
	('ALTER TABLE cqrs_es.events DISABLE TRIGGER dispatch_event', 'own'),
	('ALTER TABLE cqrs_es.events ENABLE ALWAYS TRIGGER dispatch_event', 'own'),
	('ALTER TABLE cqrs_es.events DISABLE TRIGGER USER', 'own'),
	-- a restore does these
	('ALTER TABLE cqrs_es.events DISABLE TRIGGER ALL; ALTER TABLE cqrs_es.events ENABLE TRIGGER ALL', 'as it was'),
	('ALTER SEQUENCE cqrs_es.events_global_position_seq RESTART WITH 10000', 'as it was'),
	('CREATE TABLE keep_place.t (n int); CREATE INDEX events_global_position_idx ON keep_place.t (n); DROP INDEX keep_place.events_global_position_idx', 'as it was')
	) AS v (statement, message);

-- a log of one's own makes room for another
SELECT is((pg_temp.error_of('ALTER TABLE cqrs_es.events RENAME TO evts'))[4], 'Only the log can give way to another table, after cqrs_es.own_log().', 'the hint');
SELECT is((pg_temp.error_of('ALTER TABLE cqrs_es.handlers RENAME TO evts'))[4], 'Only the log can give way to another table, after cqrs_es.own_log().', 'of the others');
SET LOCAL client_min_messages = error;
SELECT is(pg_temp.said('SELECT cqrs_es.own_log(); ALTER TABLE cqrs_es.events RENAME TO evts; ALTER TABLE cqrs_es.evts RENAME TO events'), 'own', 'away and back');
SELECT is(pg_temp.said('SELECT cqrs_es.own_log(); ALTER TABLE cqrs_es.events SET SCHEMA public; ALTER TABLE public.events SET SCHEMA cqrs_es'), 'own', 'moved and back');
SELECT is(pg_temp.said('SELECT cqrs_es.own_log(); ALTER TABLE cqrs_es.events RENAME TO evts; CREATE TABLE cqrs_es.events (LIKE cqrs_es.evts INCLUDING ALL); ALTER TABLE cqrs_es.evts RENAME TO old'), 'own', 'replaced');
SELECT is((SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'cqrs_es_keep%' AND evtenabled = 'O'), 4::bigint, 'all four look');
SELECT is(pg_temp.is_own(), false, 'and nothing of this is left');
ROLLBACK;
