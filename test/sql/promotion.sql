\i test/include/setup.sql
-- promote_projection: what is kept of a view, who may, what is refused, and that a refusal leaves all as it was.

BEGIN;
SELECT plan(69);
CREATE SCHEMA pm;
SET search_path = pm, public;
CREATE TABLE b (account text PRIMARY KEY, owner text, balance numeric NOT NULL DEFAULT 0);
CREATE TABLE days (day int PRIMARY KEY, n int);
CREATE TABLE days2 (n int, day int PRIMARY KEY);
CREATE TABLE b2 (balance numeric NOT NULL DEFAULT 0, owner text, account text PRIMARY KEY, note text);
-- a pair each, declared in an order that is not that of their oids
SELECT cqrs_es.create_projection('pm', '{pm}', '{b,days}') IS NULL AS x,
	cqrs_es.create_projection('pm2', '{pm}', '{b2,days2}', backfill => true) IS NULL AS y,
	cqrs_es.define_handler('pm', 'made', $$WITH d AS (INSERT INTO days VALUES ((event.payload->>'n')::int, 1) ON CONFLICT (day) DO UPDATE SET n = days.n + 1)
		INSERT INTO b VALUES (event.aggregate_id, event.payload->>'o', (event.payload->>'n')::numeric)$$) IS NULL AS z,
	cqrs_es.define_handler('pm2', 'made', $$WITH d AS (INSERT INTO days2 VALUES (1, (event.payload->>'n')::int) ON CONFLICT (day) DO UPDATE SET n = days2.n + 1)
		INSERT INTO b2 VALUES ((event.payload->>'n')::numeric, event.payload->>'o', event.aggregate_id)$$) IS NULL AS u \gset
SELECT count(cqrs_es.append_event('pm', i::text, 'made', jsonb_build_object('o', 'x', 'n', i % 3))) AS x FROM generate_series(1, 10) AS i \gset
CREATE FUNCTION pg_temp.states() RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(format('%s %s to %s', name, state, (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'pm' AND global_position <= last_position)), ', ' ORDER BY name)
	FROM cqrs_es.projection_status WHERE name IN ('pm', 'pm2')$$;
CREATE ROLE pm_owner;
CREATE ROLE pm_reader;
GRANT USAGE, CREATE ON SCHEMA pm TO pm_owner;
GRANT USAGE ON SCHEMA pm TO pm_reader;

-- what is kept
CREATE VIEW v WITH (security_barrier = true, check_option = local) AS SELECT account, owner, balance FROM b WHERE balance >= 0;
ALTER VIEW v RENAME owner TO "Held by";
ALTER VIEW v ALTER COLUMN balance SET DEFAULT 7;
COMMENT ON VIEW v IS 'balances';
COMMENT ON COLUMN v."Held by" IS 'who';
GRANT SELECT ON v TO pm_reader;
GRANT UPDATE (balance) ON v TO pm_reader;
CREATE VIEW over AS SELECT count(*) AS n, sum(balance) AS balance FROM v;
CREATE VIEW dv AS SELECT day, n FROM days;
CREATE VIEW triggered AS SELECT count(*) AS n FROM b;
CREATE FUNCTION pm.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER instead INSTEAD OF INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE FUNCTION pg_temp.kept() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' | ', c.oid, c.relowner, c.relacl, c.reloptions, obj_description(c.oid), col_description(c.oid, 2),
		(SELECT string_agg(concat(attname, format_type(atttypid, atttypmod), attacl, atthasdef), ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid),
		(SELECT string_agg(concat(tgname, tgenabled), ' ') FROM pg_trigger WHERE tgrelid = c.oid)), E'\n' ORDER BY c.oid)
	FROM pg_class AS c WHERE c.oid = ANY ('{pm.v,pm.over,pm.dv,pm.triggered}'::regclass[]) $$;
SELECT pg_temp.kept() AS kept, (SELECT array_agg(t::text ORDER BY t) FROM v AS t) AS rows, (SELECT o::text FROM over AS o) AS sums,
	(SELECT array_agg(t::text ORDER BY t) FROM dv AS t) AS day_rows \gset
SET client_min_messages = error;
SELECT is(cqrs_es.promote_projection('pm2', replaces => 'pm', views => '{v,dv,triggered,v}')::text, '', 'promoted, one that is filled only then');
SELECT is(pg_temp.kept(), :'kept', 'owner, grants, options, comments, defaults, triggers of the views are as they were');
SELECT is((SELECT array_agg(t::text ORDER BY t) FROM v AS t), :'rows'::text[], 'the rows of the first table');
SELECT is((SELECT array_agg(t::text ORDER BY t) FROM dv AS t), :'day_rows'::text[], 'and of the second, which was declared second');
SELECT is((SELECT o::text FROM over AS o), :'sums', 'a view over the view follows it');
SELECT is(pg_temp.states(), 'pm paused to 10, pm2 live to 10', 'the old one is paused');
SELECT count(cqrs_es.append_event('pm', i::text, 'made', jsonb_build_object('o', 'y', 'n', i % 3))) AS x FROM generate_series(11, 15) AS i \gset
SELECT is((SELECT count(*)::int FROM v), 15, 'the new one follows appends');
SELECT is((SELECT count(*)::int FROM b), 10, 'the old one does not');
SELECT throws_ok($$INSERT INTO v VALUES ('z', 'z', -1)$$, '44000', NULL, 'CHECK OPTION is kept');
SELECT is(cqrs_es.promote_projection('pm', replaces => 'pm2', views => '{v,dv,triggered}')::text, '', 'and back');
SELECT is(pg_temp.kept(), :'kept', 'the views as they were');
SELECT is((SELECT array_agg(t::text ORDER BY t) FROM v AS t), (SELECT array_agg((account, owner, balance)::text ORDER BY account) FROM b2), 'with all events of meanwhile');
SELECT is(pg_temp.states(), 'pm live to 15, pm2 paused to 15', 'they have changed places');
SELECT is((SELECT count(*)::int FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid WHERE r.ev_class IN ('v'::regclass, 'dv'::regclass, 'triggered'::regclass) AND d.refobjid IN ('b2'::regclass, 'days2'::regclass)), 0, 'and nothing reads the tables of the other');

-- without views; one that is live already; the same with both live
SELECT cqrs_es.resume_projection('pm2') AS x \gset
SELECT is(pg_temp.states(), 'pm live to 15, pm2 live to 15', 'both live');
SELECT is(cqrs_es.promote_projection('pm2', replaces => 'pm', views => '{v,dv,triggered}')::text, '', 'promoted, one that was live');
SELECT is(pg_temp.states(), 'pm paused to 15, pm2 live to 15', 'the old one is paused');
SELECT is(cqrs_es.promote_projection('pm', replaces => 'pm2', views => '{v,dv,triggered}')::text, '', 'and back, in one transaction');
SELECT cqrs_es.pause_projection('pm') IS NULL AS x \gset
SELECT is(cqrs_es.promote_projection('pm2', replaces => 'pm', views => NULL)::text, '', 'one that was paused is replaced; no views');
SELECT is(pg_temp.states(), 'pm paused to 15, pm2 live to 15', 'and stays paused');
SELECT is(cqrs_es.promote_projection('pm', replaces => 'pm2', views => '{}')::text, '', 'no views, in an array');

-- what is refused; nothing has happened then
SELECT pg_temp.states() AS states, pg_temp.kept() AS kept \gset
CREATE FUNCTION pg_temp.refused(views text, name text DEFAULT 'pm2', replaces text DEFAULT 'pm') RETURNS text LANGUAGE sql AS
	$$SELECT concat_ws(' ', e[1], e[2]) FROM pg_temp.error_of(format('SELECT cqrs_es.promote_projection(%L, %L, %L)', name, replaces, views)) AS e$$;
SELECT is(pg_temp.refused('{v}', 'none'), '42704 projection "none" does not exist', 'no such projection');
SELECT is(pg_temp.refused('{v}', 'pm2', 'none'), '42704 projection "none" does not exist', 'none to replace');
SELECT is(pg_temp.refused('{v}', 'pm'), '22023 projection "pm" cannot replace itself', 'itself');
SELECT is(pg_temp.refused('{v}', NULL), '22004 projection name must not be null', 'no name');
SELECT is(pg_temp.refused('{v}', 'pm2', NULL), '22004 replaces must not be null', 'nothing to replace');
SELECT is(pg_temp.refused('{NULL}'), '22004 views must not contain nulls', 'a null among the views');
SELECT is(pg_temp.refused('{{v},{dv}}'), '2202E views must be a one-dimensional array', 'views in two dimensions');
SELECT is(pg_temp.refused('{999999}'), '42P01 view does not exist', 'no such view');
SELECT is(pg_temp.refused('{b}'), '42809 "b" is not a view', 'a table');
SELECT is(pg_temp.refused('{over}'), '22023 view "over" reads no table that could be replaced', 'a view over a view');
CREATE VIEW beside AS SELECT 1 AS n;
SELECT is(pg_temp.refused('{v,beside}'), '22023 view "beside" reads no table that could be replaced', 'a view of something else');
CREATE MATERIALIZED VIEW m AS SELECT account FROM b;
SELECT is(pg_temp.refused('{m}'), '42809 "m" is a materialized view', 'a materialized view');
CREATE VIEW ruled AS SELECT account FROM b;
CREATE RULE r AS ON INSERT TO ruled DO INSTEAD DELETE FROM b;
SELECT is(pg_temp.refused('{ruled}'), '55000 rule "r" of view "ruled" names the old table', 'a rule that writes the old table');
CREATE OR REPLACE RULE r AS ON INSERT TO ruled DO INSTEAD NOTHING;
SELECT is(pg_temp.refused('{ruled}'), '', 'but not one that does not');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{ruled}'))::text, '', 'and back');
SELECT is(pg_temp.states(), 'pm live to 15, pm2 paused to 15', 'the projections are as they were');
SELECT is(pg_temp.kept(), :'kept', 'so are the views');

-- columns
CREATE VIEW c AS SELECT account FROM b WHERE owner = 'x';
ALTER TABLE b2 RENAME owner TO held_by;
SELECT is(pg_temp.refused('{c}'), '42703 table pm.b2 has no column "owner", which view "c" reads', 'a column that the new table does not have, read in a condition');
ALTER TABLE b2 RENAME held_by TO owner;
ALTER TABLE b2 ALTER owner TYPE varchar(9);
SELECT is(pg_temp.refused('{c}'), '42804 column "owner" of table pm.b2 is another one than view "c" reads', 'one of another type');
ALTER TABLE b2 ALTER owner TYPE text COLLATE "C";
SELECT is(pg_temp.refused('{c}'), '42804 column "owner" of table pm.b2 is another one than view "c" reads', 'one of another collation');
ALTER TABLE b2 ALTER owner TYPE text COLLATE "default";
CREATE VIEW w AS SELECT b FROM b;
SELECT is(pg_temp.refused('{w}'), '42P16 cannot change data type of view column "b" from pm.b to pm.b2', 'rows of the old table that are shown as they are');
CREATE VIEW g AS SELECT account, balance FROM b GROUP BY account;
ALTER TABLE b2 DROP CONSTRAINT b2_pkey;
SELECT is(left(pg_temp.refused('{g}'), 40), '42803 column "b.balance" must appear in ', 'GROUP BY a key that the new table does not have');
ALTER TABLE b2 ADD PRIMARY KEY (account);
DROP VIEW w;
SELECT cqrs_es.create_projection('pm1', '{pm}', '{}', backfill => true) IS NULL AS x \gset
SELECT is(pg_temp.refused('{v}', 'pm1'), '22023 view "v" reads table "b", in whose place there is no other', 'no table in the place of the old one');
SELECT is(pg_temp.states(), 'pm live to 15, pm2 paused to 15', 'the projections are as they were');

-- an event that fails
SELECT cqrs_es.define_handler('pm2', 'other', 'DELETE FROM b2 WHERE 1 / (event.payload->>''n'')::int = 0') IS NULL AS x, version FROM cqrs_es.append_event('pm', 'o', 'other', '{"n": 0}') \gset
SELECT is(left(pg_temp.refused('{v}'), 36), 'QE201 projection "pm2" failed on eve', 'a handler that fails');
SELECT is(pg_temp.states(), 'pm live to 16, pm2 paused to 15', 'leaves the projections as they were');
SELECT is(pg_temp.kept(), :'kept', 'and the views');
SELECT cqrs_es.resume_projection('pm2', on_error => 'skip') AS x, cqrs_es.pause_projection('pm2') IS NULL AS y \gset
SELECT is(pg_temp.refused('{v}'), '', 'one that has skipped it can be promoted');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{v}'))::text, '', 'and back');

-- row security, and rights
ALTER TABLE b ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.refused('{v}'), '55000 table "b2" has no row security as table "b" has', 'rows that were hidden would be shown');
ALTER TABLE b2 ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.refused('{v}'), '', 'both have it');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{v}'))::text, '', 'and back');
GRANT EXECUTE ON FUNCTION cqrs_es.promote_projection, cqrs_es.create_projection TO pm_owner;
GRANT USAGE ON SCHEMA cqrs_es TO pm_owner;
GRANT SELECT ON cqrs_es.events TO pm_owner;
SELECT throws_ok($$SELECT pg_temp.as_role('pm_owner', $q$SELECT cqrs_es.promote_projection('pm2', 'pm', '{v}')$q$)$$, '42501', 'must be owner of projection "pm"', 'who does not own the projections');
GRANT SELECT ON b TO pm_owner;
ALTER VIEW c OWNER TO pm_owner;
SELECT is(pg_temp.refused('{c}'), '42501 role "pm_owner" may read table "b", but not table "b2"', 'the owner of the view may not read the new table');
GRANT SELECT ON b2 TO pm_owner;
SELECT is(pg_temp.refused('{c}'), '', 'but then may');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{c}'))::text, '', 'and back');
CREATE VIEW i WITH (security_invoker = true) AS SELECT account FROM b;
GRANT SELECT ON i TO pm_reader;
GRANT SELECT ON b TO pm_reader;
SELECT is(pg_temp.refused('{i}'), '42501 role "pm_reader" may read table "b", but not table "b2"', 'nor may who reads it with rights of their own');
GRANT SELECT ON b2 TO pm_reader;
SELECT is(pg_temp.refused('{i}'), '', 'but then may');
SELECT is((SELECT reloptions::text FROM pg_class WHERE oid = 'i'::regclass), '{security_invoker=true}', 'the view still asks for that');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{i}'))::text, '', 'and back');

CREATE VIEW narrow AS SELECT account FROM b;
ALTER VIEW narrow SET (security_invoker = true);
CREATE ROLE pm_columns;
GRANT SELECT ON narrow TO pm_columns;
GRANT SELECT (account) ON b TO pm_columns;
SELECT is(pg_temp.refused('{narrow}'), '42501 role "pm_columns" may read table "b", but not table "b2"', 'nor may who reads some columns of the old one');
GRANT SELECT (account) ON b2 TO pm_columns;
SELECT is(pg_temp.refused('{narrow}'), '', 'but then may, those of the new one');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{narrow}'))::text, '', 'and back');
SELECT pg_temp.as_role('pm_owner', $$CREATE TABLE pm.own1 (account text PRIMARY KEY); CREATE TABLE pm.own2 (account text PRIMARY KEY)$$) IS NULL AS x,
	pg_temp.as_role('pm_owner', $$SELECT cqrs_es.create_projection('own1', '{own}', '{pm.own1}'), cqrs_es.create_projection('own2', '{own}', '{pm.own2}', backfill => true)$$) IS NULL AS y \gset
CREATE VIEW others AS SELECT account FROM own1;
SELECT throws_ok($$SELECT pg_temp.as_role('pm_owner', $q$SELECT cqrs_es.promote_projection('own2', 'own1', '{others}')$q$)$$, '42501', 'must be owner of view others', 'who owns the projections, and not the view');

-- names that mean something else to the caller
CREATE SCHEMA evil;
CREATE TABLE evil.b2 (account int);
CREATE TABLE evil.b (account int);
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE VIEW pm.s AS SELECT lower(account) AS l FROM b WHERE account = account;
CREATE TEMP TABLE b2 (account int);
CREATE TEMP TABLE s (account int);
SET search_path = pg_temp, evil, pg_catalog, pm, public;
SELECT pg_temp.refused('{pm.s}') AS answer \gset
SET search_path = pm, public;
SELECT is(:'answer'::text, '', 'names mean what they meant in the view');
-- (15 names the only table of a query with each column, later servers do not)
SELECT is(replace(pg_get_viewdef('pm.s'::regclass), 'b.', ''), E' SELECT lower(account) AS l\n   FROM pm.b2 b\n  WHERE (account = account);', 'and nothing of the session');
SELECT is((cqrs_es.promote_projection('pm', 'pm2', '{pm.s}'))::text, '', 'and back');
SELECT is(current_setting('search_path'), 'pm, public', 'the search_path is the caller''s');
ROLLBACK;
