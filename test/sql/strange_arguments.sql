\i test/include/setup.sql
-- Every function of the extension, those that are internal and those that come later as
-- well, with nothing but nulls, and with oids that mean nothing: an answer or an error that
-- is not internal, and the server is still there.
SELECT last_value FROM cqrs_es.events_global_position_seq \gset
BEGIN;
SET LOCAL statement_timeout = '60s';
SET LOCAL client_min_messages = error;

CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'fine';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE WHEN SQLSTATE LIKE 'XX%' THEN concat_ws(' ', SQLSTATE, SQLERRM) ELSE 'fine' END;
END $$;
CREATE TEMP TABLE functions AS
	SELECT p.*, CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT * FROM' END AS verb FROM pg_proc AS p
	WHERE p.pronamespace = 'cqrs_es'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype);
CREATE TEMP TABLE arguments AS
	SELECT f.oid, f.verb, format_type(t, NULL) AS type, quote_ident(f.proargnames[n]) AS name, n > f.pronargs - f.pronargdefaults AS may_be_left_out
	FROM functions AS f, unnest(f.proargtypes) WITH ORDINALITY AS a (t, n);
CREATE TEMP TABLE strange (type text, value text);
INSERT INTO strange SELECT t, format('%L::oid', o) FROM unnest('{regclass,regprocedure,regrole,oid}'::text[]) AS t, unnest('{0,1,4294967295}'::text[]) AS o;
INSERT INTO strange SELECT 'regclass[]', format('ARRAY[%s::regclass]', value) FROM strange WHERE type = 'regclass';

SELECT cqrs_es.create_aggregate('strange') IS NULL AS x \gset
SELECT cqrs_es.create_projection('strange') IS NULL AS x \gset
SELECT cqrs_es.create_projection('stranger') IS NULL AS x \gset
SELECT cqrs_es.create_subscription('strange') IS NULL AS x \gset

-- with all that must be given, and one that is strange
CREATE TEMP TABLE calls AS
	SELECT a.oid::regprocedure AS function, a.name, s.value, format('%s %s(%s)', a.verb, a.oid::regproc,
		(SELECT string_agg(format('%s => %s', o.name, CASE WHEN o.name = a.name THEN s.value WHEN o.name = 'replaces' THEN quote_literal('stranger')
			WHEN o.type = 'text' THEN quote_literal('strange') ELSE format('NULL::%s', o.type) END), ', ')
		FROM arguments AS o WHERE o.oid = a.oid AND (NOT o.may_be_left_out OR o.name = a.name))) AS call
	FROM arguments AS a JOIN strange AS s USING (type);

SELECT plan((SELECT count(*) FROM functions)::int + (SELECT count(*) FROM calls)::int + 2);
SELECT cmp_ok(count(*), '>', 50::bigint, 'there are functions') FROM functions;
SELECT cmp_ok(count(*), '>', 10::bigint, 'and some that take oids') FROM calls;
SELECT is(pg_temp.outcome(format('%s %s(%s)', f.verb, f.oid::regproc,
	(SELECT string_agg(format('NULL::%s', format_type(t, NULL)), ', ' ORDER BY n) FROM unnest(f.proargtypes) WITH ORDINALITY AS a (t, n)))), 'fine', format('nulls: %s', f.oid::regprocedure))
FROM functions AS f ORDER BY f.oid::regprocedure::text;
SELECT is(pg_temp.outcome(call), 'fine', format('%s => %s: %s', name, value, function)) FROM calls ORDER BY function::text, name, value;
SELECT finish();
ROLLBACK;
-- after_failover() is one of them, and what it skips a rollback does not bring back
SELECT setval('cqrs_es.events_global_position_seq', :last_value) IS NULL AS x \gset
