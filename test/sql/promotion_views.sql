\i test/include/setup.sql
-- promote_projection: a view that reads other tables stays the same view, whatever its query is made of.

BEGIN;
SELECT plan(68);
CREATE SCHEMA "P v";
CREATE SCHEMA pw;
SET search_path = "P v", public;
CREATE TABLE "P v".b (account text PRIMARY KEY, "Ow'ner" text, balance numeric NOT NULL DEFAULT 0, at timestamptz);
ALTER TABLE b ADD gone int;
ALTER TABLE b DROP gone;
-- other places, more columns, one with the name that a column of another table has, another schema, another name
CREATE TABLE pw."b""2" (note text DEFAULT 'new', at timestamptz, gone int, balance numeric NOT NULL DEFAULT 0, kind text DEFAULT 'new', "Ow'ner" text, account text PRIMARY KEY);
ALTER TABLE pw."b""2" DROP gone;
CREATE TABLE o (account text PRIMARY KEY, note text, kind text);
CREATE TABLE pw.b (n int);
INSERT INTO pw.b VALUES (1), (2);
CREATE TABLE k (kind text PRIMARY KEY, rank int);
INSERT INTO o VALUES ('1', 'one', 'x'), ('2', 'two', 'y'), ('9', 'nine', 'x');
INSERT INTO k VALUES ('x', 1), ('y', 2), ('new', 3);
SELECT cqrs_es.create_projection('pv', '{pv}', ARRAY['b'::regclass]) IS NULL AS x,
	cqrs_es.create_projection('pv2', '{pv}', ARRAY['pw."b""2"'::regclass]) IS NULL AS y,
	cqrs_es.define_handler('pv', 'made', $$INSERT INTO "P v".b VALUES (event.aggregate_id, event.payload->>'o', (event.payload->>'n')::numeric, '2020-01-01 00:00+00')$$) IS NULL AS z,
	cqrs_es.define_handler('pv2', 'made', $$INSERT INTO pw."b""2" (account, "Ow'ner", balance, at) VALUES (event.aggregate_id, event.payload->>'o', (event.payload->>'n')::numeric, '2020-01-01 00:00+00')$$) IS NULL AS u \gset
SELECT count(cqrs_es.append_event('pv', i::text, 'made', jsonb_build_object('o', chr(64 + i % 3), 'n', i * 10))) AS x FROM generate_series(1, 5) AS i \gset

CREATE FUNCTION pg_temp.rows_of_v() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	rows text;
BEGIN
	EXECUTE $q$SELECT string_agg(t::text, E'\n' ORDER BY t::text) FROM pw.v AS t$q$ INTO rows;
	RETURN rows;
END $$;
-- What is wrong with a view of this query after promotions there and back; NULL: nothing.
CREATE FUNCTION pg_temp.wrong(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	rows text; after text;
BEGIN
	EXECUTE 'CREATE VIEW pw.v AS ' || query;
		rows := pg_temp.rows_of_v();
	EXECUTE $q$SELECT cqrs_es.promote_projection('pv2', 'pv', '{pw.v}')$q$;
	IF pg_temp.rows_of_v() IS DISTINCT FROM rows THEN
		RETURN format('before: %s, after: %s', rows, pg_temp.rows_of_v());
	END IF;
	after := pg_get_viewdef(to_regclass('pw.v'));
	-- it reads the new table
	DELETE FROM pw."b""2";
	IF pg_temp.rows_of_v() IS NOT DISTINCT FROM rows THEN
		RETURN 'it does not read the new table: ' || after;
	END IF;
	IF EXISTS (SELECT FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid WHERE r.ev_class = to_regclass('pw.v') AND d.refobjid = 'b'::regclass) THEN
		RETURN 'it reads the old table still: ' || after;
	END IF;
	EXECUTE $q$SELECT cqrs_es.promote_projection('pv', 'pv2', '{pw.v}')$q$;
	IF pg_temp.rows_of_v() IS DISTINCT FROM rows THEN
		RETURN format('and back: %s, %s', rows, pg_temp.rows_of_v());
	END IF;
	RAISE EXCEPTION 'undo' USING ERRCODE = 'UNDO0';
EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
	RETURN NULL;
WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

SELECT is(pg_temp.wrong(query), NULL, what) FROM (VALUES
	('columns', 'SELECT account, "Ow''ner", balance FROM b'),
	('all columns', 'SELECT * FROM b'),
	('an alias', 'SELECT x.balance, x.account FROM b AS x'),
	('aliases of columns', 'SELECT p, q, r FROM b AS x (p, q, r)'),
	('an alias of the first column', 'SELECT p, balance FROM b AS x (p)'),
	('aliases that are columns of the new table', 'SELECT x.* FROM b AS x (note, kind, at2)'),
	('aliases that are columns of the old table', 'SELECT x.* FROM b AS x (balance, account, at, "Ow''ner")'),
	('itself', 'SELECT x.account, y.balance FROM b AS x JOIN b AS y ON x.account > y.account'),
	('itself, without an alias', 'SELECT b.account, y.balance FROM b JOIN b AS y ON b.account > y.account'),
	('a join with USING', 'SELECT * FROM b JOIN o USING (account)'),
	('a join the other way round', 'SELECT * FROM o JOIN b USING (account)'),
	('a left join', 'SELECT * FROM o LEFT JOIN b USING (account)'),
	('a full join', 'SELECT account, balance, note FROM b FULL JOIN o USING (account)'),
	('a natural join', 'SELECT * FROM b NATURAL JOIN o'),
	('a cross join', 'SELECT b.account, o.account AS other FROM b CROSS JOIN o'),
	('a list of tables', 'SELECT b.account, o.note FROM b, o WHERE b.account = o.account'),
	('USING of a column that the new table has, too', 'SELECT * FROM b JOIN o USING (account) JOIN k USING (kind)'),
	('the same inside of another', 'SELECT b.account, note, c.balance, rank FROM (b JOIN o USING (account)) JOIN (k JOIN b AS c ON true) USING (kind)'),
	('USING with a name', 'SELECT u.account, note FROM b JOIN o USING (account) AS u'),
	('an aliased join', 'SELECT j.balance, j.note FROM (b JOIN o USING (account)) AS j'),
	('an aliased join, with aliases of columns', 'SELECT j.* FROM (b JOIN o USING (account)) AS j (p, q, r, s, t, u)'),
	('such a join of aliased tables', 'SELECT j.* FROM (b AS b1 (q, p) JOIN o AS o1 (q, w) USING (q)) AS j (p1, q1, r1, s1, t1)'),
	('such a join in a join', 'SELECT j.p, j.q, j.r, o.note FROM ((b JOIN b AS c ON b.account = c.account) AS j (p, q, r, s, t) JOIN o ON o.account = j.p)'),
	('a table sample', 'SELECT account FROM b TABLESAMPLE system (100) REPEATABLE (1)'),
	('a table sample in a join', 'SELECT x1, balance, note FROM (b AS b1 (x1) TABLESAMPLE bernoulli (100) JOIN o ON o.account = x1)'),
	('the table alone', 'SELECT account FROM ONLY b'),
	('the table alone in a join', 'SELECT * FROM (ONLY b JOIN o USING (account)) AS j (x1, x2, x3)'),
	('WITH', 'WITH s AS (SELECT account, balance FROM b WHERE balance > 10) SELECT s.balance FROM s'),
	('WITH of the same name', 'WITH b AS (SELECT b.* FROM "P v".b) SELECT * FROM b'),
	('WITH RECURSIVE', 'WITH RECURSIVE r AS (SELECT account, 1 AS n FROM b UNION ALL SELECT r.account, n + 1 FROM r JOIN b USING (account) WHERE n < 3) SELECT * FROM r'),
	('WITH MATERIALIZED', 'WITH s AS MATERIALIZED (SELECT * FROM b) SELECT account FROM s WHERE EXISTS (WITH t AS (SELECT * FROM b) SELECT FROM t WHERE t.account = s.account)'),
	('a subquery', 'SELECT s.x FROM (SELECT account AS x, balance FROM b ORDER BY balance LIMIT 3) AS s'),
	('EXISTS', 'SELECT note FROM o WHERE EXISTS (SELECT FROM b WHERE b.account = o.account)'),
	('IN', 'SELECT note FROM o WHERE account IN (SELECT account FROM b WHERE b.balance > 10)'),
	('NOT IN, both', 'SELECT account FROM b WHERE account NOT IN (SELECT account FROM b WHERE balance > 20)'),
	('ANY and ALL', 'SELECT note FROM o WHERE account = ANY (SELECT account FROM b) AND account <= ALL (SELECT account FROM b)'),
	('a scalar subquery', 'SELECT (SELECT sum(balance) FROM b AS x WHERE x.account <= b.account) AS running, account FROM b'),
	('an array of a subquery', 'SELECT ARRAY(SELECT balance FROM b ORDER BY balance) AS all_of_them'),
	('a correlated subquery, two levels', 'SELECT note FROM o WHERE (SELECT count(*) FROM k WHERE EXISTS (SELECT FROM b WHERE b.account = o.account AND k.kind = o.kind)) = 1'),
	('LATERAL', 'SELECT b.account, l.n FROM b, LATERAL (SELECT count(*) AS n FROM b AS x WHERE x.balance <= b.balance) AS l'),
	('LATERAL, a function', 'SELECT b.account, n FROM b, LATERAL generate_series(1, b.balance::int / 10) AS n'),
	('a function of rows', 'SELECT b.account, x.* FROM b, LATERAL jsonb_to_record(jsonb_build_object(''n'', b.balance)) AS x (n numeric)'),
	('unnest WITH ORDINALITY', 'SELECT b.account, u.* FROM b, unnest(ARRAY[b.balance, 1], ARRAY[b.account]) WITH ORDINALITY AS u (p, q, n)'),
	('XMLTABLE', 'SELECT b.account, x.* FROM b, XMLTABLE(''/r'' PASSING xmlelement(name r, b.balance) COLUMNS v numeric PATH ''.'') AS x'),
	('UNION', 'SELECT account FROM b UNION SELECT note FROM o UNION ALL SELECT "Ow''ner" FROM b'),
	('EXCEPT and INTERSECT', '(SELECT account FROM b EXCEPT SELECT account FROM o) UNION (SELECT account FROM b INTERSECT SELECT account FROM o WHERE account < ''2'') ORDER BY 1'),
	('VALUES', 'SELECT b.account, w FROM b JOIN (VALUES (''1'', ''w1''), (''2'', ''w2'')) AS v (account, w) USING (account)'),
	('GROUP BY', 'SELECT "Ow''ner", sum(balance) AS balance FROM b GROUP BY "Ow''ner" HAVING sum(balance) > 20'),
	('GROUP BY the key', 'SELECT b.account, b.balance, count(o.note) AS n FROM b LEFT JOIN o ON o.account = b.account GROUP BY b.account'),
	('GROUPING SETS', 'SELECT "Ow''ner", account, grouping("Ow''ner"), sum(balance) FROM b GROUP BY GROUPING SETS (("Ow''ner"), (account), ())'),
	('aggregates', 'SELECT count(DISTINCT "Ow''ner"), string_agg(account, '','' ORDER BY balance DESC) FILTER (WHERE balance > 10), percentile_cont(0.5) WITHIN GROUP (ORDER BY balance) FROM b'),
	('windows', 'SELECT account, sum(balance) OVER w, rank() OVER (PARTITION BY "Ow''ner" ORDER BY balance), lag(account) OVER (w ROWS 2 PRECEDING) FROM b WINDOW w AS (ORDER BY balance)'),
	('DISTINCT ON', 'SELECT DISTINCT ON ("Ow''ner") "Ow''ner", account FROM b ORDER BY "Ow''ner", balance DESC'),
	('ORDER BY, LIMIT', 'SELECT account FROM b ORDER BY balance DESC NULLS LAST OFFSET 1 FETCH FIRST 2 ROWS WITH TIES'),
	('ORDER BY what is not shown', 'SELECT -balance AS balance FROM b ORDER BY b.balance LIMIT 1'),
	('FOR UPDATE', 'SELECT x.account FROM b AS x JOIN o USING (account) FOR UPDATE OF x'),
	('FOR SHARE', 'SELECT account FROM b FOR SHARE'),
	('a whole row', 'SELECT (s.x).account, (s.x)."Ow''ner" FROM (SELECT b AS x FROM b) AS s'),
	('whole rows compared', 'SELECT x.account FROM b AS x JOIN b AS y ON x = y'),
	('a count of whole rows', 'SELECT count(b) AS n, count(DISTINCT b.*) AS d FROM b'),
	('a whole row of an aliased join', 'SELECT (j).balance FROM (SELECT j FROM (b JOIN o USING (account)) AS j) AS s (j)'),
	('the type of rows', 'SELECT (jsonb_populate_record(NULL::b, jsonb_build_object(''account'', b.account))).account FROM b'),
	('an array of rows', 'SELECT (array_agg(b ORDER BY balance))[1].account FROM b'),
	('constants', $$SELECT account, at > '2019-01-01 00:00+01'::timestamptz AS later, interval '1 day 2:00' AS i, 0.1::float8 + 0.2::float8 AS f, '\x00ff'::bytea AS b, E'it''s \\ "x"' AS e, '2020-02-01'::date AS d, NULL::text AS n, '{1,NULL}'::int[] AS a FROM b$$),
	('expressions', $$SELECT CASE "Ow'ner" WHEN 'A' THEN 1 ELSE coalesce(nullif(balance, 10), 7) END AS c, (account, balance) > ('2', 5) AS r, "Ow'ner" COLLATE "C" < 'B' AS l,
		balance BETWEEN 10 AND 30 AS w, account SIMILAR TO '[12]' AS s, extract(year FROM at AT TIME ZONE 'UTC') AS y, at IS DISTINCT FROM now() AS i, greatest(balance, 3) AS g, "Ow'ner" = ANY ('{A,B}') AS y2 FROM b$$),
	('a column in two places', 'SELECT account AS account, account AS "Ow''ner", "Ow''ner" AS account2 FROM b WHERE balance > (SELECT min(balance) FROM b)'),
	('a literal that is a name', $$SELECT 'P v.b' AS x, '"P v".b' AS y, account FROM b /* "P v".b */$$),
	('a table of the same name elsewhere', 'SELECT b.*, c.n FROM b JOIN pw.b AS c ON c.n::text = b.account')
) AS q (what, query), LATERAL (SELECT set_config('search_path', '"P v", public', true)) AS s;
ROLLBACK;
