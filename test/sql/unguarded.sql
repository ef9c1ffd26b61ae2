\i test/include/setup.sql
-- Where no unique index on just the stream's key guards the log, nobody writes to
-- it: neither the functions nor INSERT, nor anybody by the name of a partition.
-- Where one does, be it the primary key or not, all goes on.
BEGIN;
SELECT plan(35);
-- (which refuses most of what is done here before it is done)
ALTER EVENT TRIGGER cqrs_es_keep_place DISABLE;

-- an empty log, for the indexes
ALTER TABLE cqrs_es.events DISABLE TRIGGER USER;
TRUNCATE cqrs_es.events;
ALTER TABLE cqrs_es.events ENABLE TRIGGER USER;

-- What each way to write an event to the stream ends with: its version, or an error.
CREATE FUNCTION pg_temp.write(id text) RETURNS TABLE (way text, outcome text) LANGUAGE plpgsql AS $$
DECLARE
	target text;
BEGIN
	FOR way, target IN (SELECT w, 'cqrs_es.events' FROM unnest('{append_event,append_events,INSERT,restored}'::text[]) w)
		UNION ALL (SELECT 'partition', relid::text FROM pg_partition_tree('cqrs_es.events') WHERE isleaf AND level > 0)
	LOOP
		BEGIN
			CASE way
				WHEN 'append_event' THEN PERFORM cqrs_es.append_event('u', id, 'e', '1');
				WHEN 'append_events' THEN PERFORM cqrs_es.append_events('u', id, '[{"type": "e", "payload": 1}, {"type": "e", "payload": 2}]');
				WHEN 'restored' THEN
					INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload)
					VALUES ((5::bigint << 44) + 1, cqrs_es.stream_version('u', id) + 1, 'u', id, 'e', '1');
				ELSE
					EXECUTE format('INSERT INTO %s (aggregate_type, aggregate_id, sequence, event_type, payload)
						VALUES (''u'', %L, cqrs_es.stream_version(''u'', %2$L) + 1, ''e'', ''1'')', target, id);
			END CASE;
			outcome := cqrs_es.stream_version('u', id);
		EXCEPTION WHEN OTHERS THEN
			outcome := SQLSTATE || ' ' || SQLERRM;
		END;
		RETURN NEXT;
	END LOOP;
END $$;
-- After a change of the table, which is undone: is all written, or all refused?
CREATE FUNCTION pg_temp.outcome_of(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE change;
	SELECT string_agg(DISTINCT regexp_replace(outcome, '".*"', '...'), ', ' ORDER BY regexp_replace(outcome, '".*"', '...')) INTO result
	FROM pg_temp.write('a');
	RAISE 'undo' USING ERRCODE = 'XX999';
EXCEPTION WHEN SQLSTATE 'XX999' THEN
	RETURN result;
END $$;
CREATE FUNCTION pg_temp.refused(what text, change text) RETURNS text LANGUAGE sql AS $$
	SELECT is(pg_temp.outcome_of(change), '55000 events cannot be written to table ...', what || ': all is refused')
$$;
CREATE FUNCTION pg_temp.written(what text, change text, versions text DEFAULT '1, 3, 4, 5') RETURNS text LANGUAGE sql AS $$
	SELECT is(pg_temp.outcome_of(change), versions, what || ': all is written')
$$;
CREATE FUNCTION pg_temp.detail() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM cqrs_es.append_event('u', 'a', 'e', '1');
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN detail || ' ' || hint;
END $$;

-- the key

SELECT pg_temp.written('as installed', 'SELECT');
SAVEPOINT keys;
ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey;
SELECT pg_temp.refused('no key', 'SELECT');
SELECT is(pg_temp.detail(), 'No unique index keeps two events of a stream from having one sequence. '
	|| 'It takes a primary key or unique index, valid and not deferrable, on just aggregate_type, aggregate_id, tenant_id, in any order, and then sequence.',
	'and told what it takes');
SELECT pg_temp.refused(what, change) FROM (VALUES
	(1, 'a longer key', 'ALTER TABLE cqrs_es.events ADD PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence, global_position)'),
	(2, 'a shorter one', 'ALTER TABLE cqrs_es.events ADD PRIMARY KEY (aggregate_type, aggregate_id, sequence)'),
	(3, 'one in another order', 'ALTER TABLE cqrs_es.events ADD PRIMARY KEY (sequence, aggregate_type, aggregate_id, tenant_id)'),
	(4, 'a deferrable one', 'ALTER TABLE cqrs_es.events ADD PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence) DEFERRABLE'),
	(5, 'a part of the table', $$CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence) WHERE aggregate_type <> 'x'$$),
	(6, 'an expression', 'CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, lower(aggregate_id), tenant_id, sequence)'),
	(7, 'one downwards', 'CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence DESC)'),
	(8, 'one by pattern', 'CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, aggregate_id text_pattern_ops, tenant_id, sequence)'),
	(9, 'one that is not unique', 'CREATE INDEX ON cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence)'),
	(10, 'an invalid one', $$CREATE UNIQUE INDEX invalid ON cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence);
		UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'cqrs_es.invalid'::regclass$$)) c (n, what, change) ORDER BY n;
SELECT pg_temp.written(what, change) FROM (VALUES
	(1, 'in another order of its columns', 'ALTER TABLE cqrs_es.events ADD PRIMARY KEY (tenant_id, aggregate_id, aggregate_type, sequence)'),
	(2, 'a unique constraint', 'ALTER TABLE cqrs_es.events ADD PRIMARY KEY (event_id), ADD UNIQUE (aggregate_type, aggregate_id, tenant_id, sequence)'),
	(3, 'a unique index that covers more', 'CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, aggregate_id, tenant_id, sequence) INCLUDE (global_position)')
	) c (n, what, change) ORDER BY n;
ROLLBACK TO keys;

-- streams that are equal, but not the same

CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
SELECT pg_temp.refused('a collation that ignores case', 'ALTER TABLE cqrs_es.events ALTER aggregate_id TYPE text COLLATE any_case');
SELECT pg_temp.refused('with an index that does not', 'ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey, ALTER aggregate_id TYPE text COLLATE any_case;
	CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, aggregate_id COLLATE "C", tenant_id, sequence)');
SELECT pg_temp.refused('an index that does, without', 'ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey;
	CREATE UNIQUE INDEX ON cqrs_es.events (aggregate_type, aggregate_id COLLATE any_case, tenant_id, sequence)');
SAVEPOINT collated;
ALTER TABLE cqrs_es.events ALTER aggregate_type TYPE text COLLATE any_case;
SELECT is(pg_temp.detail(), 'Column "aggregate_type" has a nondeterministic collation, in which different streams are equal. Give it the collation "C".',
	'told what is wrong with it');
ROLLBACK TO collated;
CREATE UNIQUE INDEX beside ON cqrs_es.events (aggregate_type, aggregate_id COLLATE any_case, tenant_id, sequence);
SELECT cqrs_es.append_event('u', 'Straße', 'e', '1') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.append_event('u', 'STRAßE', 'e', '1')$$, '23505', 'duplicate key value violates unique constraint "beside"',
	'beside the key such an index is a constraint like others');
ROLLBACK TO collated;

-- tables in parts

CREATE TABLE cqrs_es.more () INHERITS (cqrs_es.events);
SELECT pg_temp.refused('a child table', 'SELECT');
SELECT is(pg_temp.detail(), 'It has child tables, which no unique index covers together with it. Partition it by columns among aggregate_type, aggregate_id, tenant_id instead.',
	'is told of');
DROP TABLE cqrs_es.more;
SELECT pg_temp.written('none any more', 'SELECT');

-- a partitioned table in place of the log
CREATE FUNCTION pg_temp.partitioned(key text, by text, parts text) RETURNS text LANGUAGE sql AS $$
	SELECT format('ALTER TABLE cqrs_es.events RENAME TO whole; ALTER INDEX cqrs_es.events_pkey RENAME TO whole_pkey;
		CREATE TABLE cqrs_es.events (LIKE cqrs_es.whole INCLUDING DEFAULTS%s) PARTITION BY %s; ', ', ' || key, by)
		|| parts || '; '
		|| string_agg(pg_get_triggerdef(oid), '; ')
	FROM pg_trigger WHERE tgrelid = 'cqrs_es.events'::regclass
$$;
SELECT pg_temp.written(what, pg_temp.partitioned('PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)', by, parts), '1, 3, 4, 5, 6') FROM (VALUES
	(1, 'by hash', 'HASH (aggregate_id)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events FOR VALUES WITH (MODULUS 1, REMAINDER 0)'),
	(2, 'by list', 'LIST (tenant_id)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT'),
	(3, 'by range of the key', 'RANGE (aggregate_type, aggregate_id)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT'),
	(4, 'on two levels', 'LIST (aggregate_type)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT PARTITION BY HASH (aggregate_id);
		CREATE TABLE cqrs_es.pp PARTITION OF cqrs_es.p FOR VALUES WITH (MODULUS 1, REMAINDER 0)')) c (n, what, by, parts) ORDER BY n;
SELECT pg_temp.refused(what, pg_temp.partitioned(key, by, parts)) FROM (VALUES
	(1, 'by range of position', 'PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence, global_position)', 'RANGE (global_position)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT'),
	(2, 'by time', 'PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence, created_at)', 'RANGE (created_at)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT'),
	(3, 'by position, each part with a key of its own', 'CHECK (true)', 'RANGE (global_position)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events (PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)) DEFAULT'),
	(4, 'by sequence', 'PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)', 'RANGE (sequence)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT'),
	(5, 'by hash without a key', 'CHECK (true)', 'HASH (aggregate_id)', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events FOR VALUES WITH (MODULUS 1, REMAINDER 0)'),
	(6, 'by an expression', 'CHECK (true)', 'HASH (lower(aggregate_id))', 'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events (PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)) FOR VALUES WITH (MODULUS 1, REMAINDER 0)'))
	c (n, what, key, by, parts) ORDER BY n;
-- where it is written by the functions or to the whole, it is for the parts to say
SELECT is(pg_temp.outcome_of(pg_temp.partitioned('PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)', 'LIST (aggregate_type)',
	'CREATE TABLE cqrs_es.p PARTITION OF cqrs_es.events DEFAULT PARTITION BY RANGE (sequence); CREATE TABLE cqrs_es.pp PARTITION OF cqrs_es.p DEFAULT')),
	'55000 events cannot be written to table ...', 'by sequence on the second level: all is refused');

SELECT * FROM finish();
ROLLBACK;
