\i test/include/setup.sql
-- Locks that are taken for somebody ask for the rights that LOCK TABLE would ask
-- for; a table becomes a read model of those only who may write it in every way.

BEGIN;
SELECT plan(27);
CREATE ROLE cqrs_es_architect;
CREATE ROLE cqrs_es_apprentice IN ROLE cqrs_es_architect;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_architect;
GRANT SELECT ON cqrs_es.events TO cqrs_es_architect;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.pause_projection,
	cqrs_es.resume_projection, cqrs_es.rebuild_projection, cqrs_es.drop_projection TO cqrs_es_architect;
CREATE SCHEMA cqrs_es_locks;
GRANT USAGE ON SCHEMA cqrs_es_locks TO cqrs_es_architect;
SET LOCAL search_path = cqrs_es_locks, public;
SELECT cqrs_es.create_aggregate('locks'), cqrs_es.append_event('locks', 'a', 'e', '{}') \gset
CREATE TABLE others (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);

-- its SQLSTATE, or the locks on the table that were there when it was over; all that it did is undone
CREATE FUNCTION pg_temp.try(role text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	lock text;
BEGIN
	PERFORM pg_temp.as_role(role, call);
	SELECT string_agg(mode, ' ' ORDER BY mode) INTO lock FROM pg_locks
		WHERE pid = pg_backend_pid() AND relation = 'cqrs_es_locks.others'::regclass AND mode ~ 'RowExclusive';
	RAISE EXCEPTION 'done' USING ERRCODE = 'P0042';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE SQLSTATE WHEN 'P0042' THEN coalesce(lock, 'no lock') ELSE SQLSTATE END;
END $$;

CREATE FUNCTION pg_temp.with_rights(rights text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
BEGIN
	EXECUTE format('GRANT %s ON cqrs_es_locks.others TO cqrs_es_architect', rights);
	outcome := pg_temp.try('cqrs_es_architect', call);
	EXECUTE format('REVOKE %s ON cqrs_es_locks.others FROM cqrs_es_architect', rights);
	RETURN outcome;
END $$;
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.create_projection('p', '{locks}', '{others}')$$), '42501', 'a read model without any right');
SELECT is(pg_temp.with_rights(rights, $$SELECT cqrs_es.create_projection('p', '{locks}', '{others}')$$), outcome, format('with %s', rights))
FROM (VALUES (1, 'INSERT', '42501'), (2, 'UPDATE', '42501'), (3, 'DELETE', '42501'), (4, 'INSERT, UPDATE', '42501'), (5, 'INSERT, DELETE', '42501'),
	(6, 'UPDATE, DELETE', '42501'), (7, 'SELECT, TRUNCATE, REFERENCES, TRIGGER', '42501'), (8, 'INSERT, UPDATE, DELETE', 'no lock'), (9, 'ALL', 'no lock')) r (n, rights, outcome)
ORDER BY n;
SELECT is(pg_temp.with_rights('INSERT, SELECT, UPDATE', $$SELECT cqrs_es.create_projection('p', state_of => 'locks', read_models => '{others}')$$), '42501', 'states need them, too');

-- Rights that are taken away again: nobody locks the table for that role any more.

GRANT INSERT, UPDATE, DELETE ON others TO cqrs_es_architect;
SELECT pg_temp.as_role('cqrs_es_architect', $$SELECT cqrs_es.create_projection('locks', '{locks}', '{others}')$$) \gset
SELECT is(pg_temp.try(role, call), 'ShareRowExclusiveLock', format('%s: %s', role, call))
FROM unnest('{cqrs_es_architect,cqrs_es_apprentice}'::text[]) AS role, (VALUES
	(1, $$SELECT cqrs_es.pause_projection('locks')$$)) c (n, call)
ORDER BY n, role;
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.pause_projection('locks'), cqrs_es.resume_projection('locks')$$), 'ShareRowExclusiveLock', 'resume');
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.rebuild_projection('locks')$$), 'RowExclusiveLock ShareRowExclusiveLock', 'rebuild');
REVOKE UPDATE, DELETE ON others FROM cqrs_es_architect;
SELECT is(pg_temp.try('cqrs_es_architect', $$LOCK TABLE cqrs_es_locks.others IN SHARE ROW EXCLUSIVE MODE$$), '42501', 'with INSERT alone LOCK TABLE is refused');
SELECT is(pg_temp.try(role, call), '42501', format('and so is %s for %s', call, role))
FROM unnest('{cqrs_es_architect,cqrs_es_apprentice,none}'::text[]) AS role, (VALUES
	(1, $$SELECT cqrs_es.pause_projection('locks')$$),
	(2, $$SELECT cqrs_es.rebuild_projection('locks')$$)) c (n, call)
ORDER BY n, role;
GRANT UPDATE ON others TO cqrs_es_architect;
SELECT is(pg_temp.try('cqrs_es_architect', $$LOCK TABLE cqrs_es_locks.others IN SHARE ROW EXCLUSIVE MODE$$), 'ShareRowExclusiveLock', 'with UPDATE it is allowed');
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.pause_projection('locks')$$), 'ShareRowExclusiveLock', 'and so is pause_projection');
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.rebuild_projection('locks')$$), '42501', 'a rebuild needs DELETE');
SELECT pg_temp.as_role('cqrs_es_architect', $$SELECT cqrs_es.pause_projection('locks')$$) \gset
REVOKE ALL ON others FROM cqrs_es_architect;
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.resume_projection('locks')$$), '42501', 'resume_projection without rights');
SELECT is(pg_temp.try('cqrs_es_architect', $$SELECT cqrs_es.drop_projection('locks')$$), 'ShareRowExclusiveLock', 'its owner can always drop it (the lock is that of the pause above)');

SELECT * FROM finish();
ROLLBACK;
