\i test/include/setup.sql
-- Where a stream ends is found in its index, whatever the index has of other streams, of
-- rows that never came to be and of rows that are gone.  An append that expects the very
-- version is the question: it is refused wherever another one is found.
SET statement_timeout = '120s';
SELECT plan(20);

-- Append once to each of these streams, expecting what is there; how many went wrong?
CREATE FUNCTION pg_temp.wrong(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	stream record;
	wrong text;
BEGIN
	FOR stream IN EXECUTE 'SELECT tenant_id, aggregate_type AS type, aggregate_id AS id, version FROM streams WHERE ' || condition LOOP
		PERFORM set_config('cqrs_es.tenant_id', stream.tenant_id, true);
		IF (cqrs_es.append_event(stream.type, stream.id, 'e', '{}', expected_version => stream.version)).version <> stream.version + 1 THEN
			wrong := concat_ws(', ', wrong, stream.id);
		END IF;
		IF pg_temp.state_of(format('SELECT cqrs_es.append_event(%L, %L, ''e'', ''{}'', expected_version => %s)', stream.type, stream.id, stream.version)) <> 'QE001' THEN
			wrong := concat_ws(', ', wrong, stream.id || ' twice');
		END IF;
	END LOOP;
	PERFORM set_config('cqrs_es.tenant_id', '', true);
	EXECUTE 'UPDATE streams SET version = version + 1 WHERE ' || condition;
	RETURN coalesce(wrong, 'none');
END $$;

-- types, ids and tenants that begin with one another, of any length, and streams beside them
-- of which there is nothing
CREATE TEMP TABLE streams AS
	SELECT tenant_id, 'end' || left(kind, 3) AS aggregate_type, id AS aggregate_id, (hashtext(tenant_id || kind || id) & 3)::bigint AS version
	FROM unnest('{"",t,tt,é}'::text[]) AS tenant_id, unnest('{"",x,xy}'::text[]) AS kind,
		(SELECT repeat('i', n) FROM generate_series(1, 140) AS n UNION SELECT 'i' || chr(n) FROM generate_series(1, 255) AS n UNION
		SELECT md5(n::text) || repeat(md5(n::text), n % 7) FROM generate_series(1, 300) AS n) AS ids (id);
CREATE FUNCTION pg_temp.fill() RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, sequence, event_type, payload)
	SELECT tenant_id, aggregate_type, aggregate_id, n, 'e', '{}' FROM streams, generate_series(1, version) AS n ORDER BY hashtext(aggregate_id), n
$$;
SELECT pg_temp.fill() IS NULL AS x \gset
BEGIN;
SELECT is(pg_temp.wrong('true'), 'none', 'each stream is found at its version');
SELECT is(pg_temp.wrong('true'), 'none', 'and at the next');
ROLLBACK;

-- others are the columns of the index, in another order, with one more behind, and no room on its pages
BEGIN;
SELECT cmp_ok(count(*), '>', 0::bigint, format('%s guards the streams', index)) FROM pg_index JOIN pg_class ON oid = indexrelid,
	LATERAL (SELECT relname AS index) AS name WHERE indrelid = 'cqrs_es.events'::regclass AND indisprimary GROUP BY index;
SELECT conname FROM pg_constraint WHERE conrelid = 'cqrs_es.events'::regclass AND contype = 'p' \gset
ALTER EVENT TRIGGER cqrs_es_keep_place DISABLE;
ALTER TABLE cqrs_es.events DROP CONSTRAINT :conname;
CREATE UNIQUE INDEX streams_by_id ON cqrs_es.events (aggregate_id, tenant_id, aggregate_type, sequence) INCLUDE (event_id) WITH (fillfactor = 100);
SELECT is(pg_temp.wrong('true'), 'none', 'by an index of columns in another order, with one that it includes');
SELECT is(pg_temp.wrong($$aggregate_id LIKE 'i%'$$), 'none', 'and again');
DROP INDEX cqrs_es.streams_by_id;
CREATE UNIQUE INDEX streams_by_tenant ON cqrs_es.events (tenant_id, aggregate_type, aggregate_id, sequence) WITH (deduplicate_items = off);
SELECT is(pg_temp.wrong('true'), 'none', 'by one that begins with the tenant');
ROLLBACK;

-- texts as the table may store them: in plain words, or not
BEGIN;
ALTER TABLE cqrs_es.events ALTER aggregate_type SET STORAGE PLAIN, ALTER aggregate_id SET STORAGE PLAIN;
REINDEX TABLE cqrs_es.events;
SELECT is(pg_temp.wrong('true'), 'none', 'texts that have headers of four bytes');
ROLLBACK;

-- nothing is unique of nulls: where they are allowed nobody appends
BEGIN;
SELECT conname FROM pg_constraint WHERE conrelid = 'cqrs_es.events'::regclass AND contype = 'p' \gset
ALTER EVENT TRIGGER cqrs_es_keep_place DISABLE;
ALTER TABLE cqrs_es.events DROP CONSTRAINT :conname;
CREATE UNIQUE INDEX streams_unique ON cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence);
ALTER TABLE cqrs_es.events ALTER sequence DROP NOT NULL, ALTER tenant_id DROP NOT NULL;
ALTER TABLE cqrs_es.events DISABLE TRIGGER USER;
INSERT INTO cqrs_es.events (global_position, event_id, created_at, event_version, metadata, aggregate_type, aggregate_id, sequence, tenant_id, event_type, payload)
	SELECT 1, gen_random_uuid(), now(), '1', '{}', 'end', 'nulls', nullif(n, 2), CASE WHEN n < 3 THEN '' END, 'e', '{}' FROM generate_series(1, 3) AS n;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('end', 'nulls', 'e', '{}')$$), '42P16', 'where keys may be null nothing is appended');
DELETE FROM cqrs_es.events WHERE sequence IS NULL OR tenant_id IS NULL;
ALTER TABLE cqrs_es.events ENABLE TRIGGER USER;
ALTER TABLE cqrs_es.events ALTER sequence SET NOT NULL, ALTER tenant_id SET NOT NULL;
SELECT is((cqrs_es.append_event('end', 'nulls', 'e', '{}')).version, 2::bigint, 'their entries, which are still there, are nobody''s');
SELECT is((cqrs_es.append_event('end', 'nulls', 'e', '{}', expected_version => 2)).version, 3::bigint, 'neither the next time');
ROLLBACK;

-- entries of rows that never came to be, behind the end, more than a page has room for
CREATE FUNCTION pg_temp.in_vain(id text, times int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		BEGIN
			PERFORM cqrs_es.append_event('end', id, 'e', '{}');
			RAISE 'undo' USING ERRCODE = 'XX999';
		EXCEPTION WHEN SQLSTATE 'XX999' THEN NULL;
		END;
	END LOOP;
END $$;
SELECT cqrs_es.append_event('end', 'vain', 'e', '{}') IS NULL AS x \gset
SELECT pg_temp.in_vain('vain', 3000) IS NULL AS x \gset
SELECT is((cqrs_es.append_event('end', 'vain', 'e', '{}', expected_version => 1)).version, 2::bigint, 'behind 3,000 that were undone');
SELECT pg_temp.in_vain('new', 3000) IS NULL AS x \gset
SELECT is((cqrs_es.append_event('end', 'new', 'e', '{}', expected_version => 0)).version, 1::bigint, 'of a stream that never came to be');
BEGIN;
SELECT cqrs_es.append_event_arrays('end', 'batch', array_fill('e'::text, '{3000}'), array_fill('{}'::jsonb, '{3000}')) IS NULL AS x \gset
ROLLBACK;
SELECT is((cqrs_es.append_event('end', 'batch', 'e', '{}', expected_version => 0)).version, 1::bigint, 'behind a batch of 3,000 of which nothing is left');

-- pages that went away with their streams
ALTER TABLE cqrs_es.events DISABLE TRIGGER USER;
DELETE FROM cqrs_es.events WHERE aggregate_type IN ('end', 'endx') AND (aggregate_id LIKE 'i%' OR aggregate_id > '8');
ALTER TABLE cqrs_es.events ENABLE TRIGGER USER;
UPDATE streams SET version = 0 WHERE aggregate_type IN ('end', 'endx') AND (aggregate_id LIKE 'i%' OR aggregate_id > '8');
VACUUM cqrs_es.events;
BEGIN;
SELECT is(pg_temp.wrong('true'), 'none', 'where pages have been emptied');
SELECT is(pg_temp.wrong('true'), 'none', 'and again');
ROLLBACK;
VACUUM cqrs_es.events;
VACUUM cqrs_es.events;
SELECT is(pg_temp.wrong('true'), 'none', 'where pages are gone');
VACUUM (FREEZE) cqrs_es.events;
SELECT is(pg_temp.wrong('true'), 'none', 'where all rows are known to be visible');

-- An id so long that the index compresses it: its streams and its neighbours are looked up by a scan, which
-- touches a few pages, and not all there are.
\i test/include/buffers.sql
BEGIN;
SELECT cqrs_es.append_event_arrays('long', repeat('a', 1000), array_fill('e'::text, '{900}'), array_fill('{}'::jsonb, '{900}')) IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'long', 'b' || lpad((n / 10)::text, 10, '0'), 'e', '{}' FROM generate_series(1, 20000) AS n;
SELECT max(pg_temp.buffers(format('SELECT cqrs_es.append_event(%L, %L, %L, %L)', 'long', id, 'e', '{}'))) AS most, max(pg_relation_size(indexrelid) / 8192) AS pages
FROM pg_index, unnest(ARRAY['short', 'b0000000077', repeat('a', 1000), repeat('a', 999), '0'] || ARRAY['short', 'b0000000077', repeat('a', 1000), repeat('a', 999), '0']) AS id WHERE indrelid = 'cqrs_es.events'::regclass AND indisprimary \gset
SELECT cmp_ok(:most, '<', 60, format('%s buffers of an index of %s pages', :most, :pages));
SELECT cmp_ok(:pages, '>', 200, 'of which there are many more');
SELECT is((cqrs_es.append_event('long', repeat('a', 1000), 'e', '{}', expected_version => v)).version, v + 1, 'by the right version') FROM cqrs_es.stream_version('long', repeat('a', 1000)) AS v;
ROLLBACK;
