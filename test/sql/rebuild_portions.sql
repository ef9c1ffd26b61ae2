\i test/include/setup.sql
-- rebuild_in_portions and resume_in_portions: the same rows as in one transaction, and what is left when one is
-- interrupted.

SELECT plan(47);
CREATE SCHEMA rp;
SET search_path = rp, public;
CREATE TABLE rp.sums (id text PRIMARY KEY, n bigint NOT NULL, trail text NOT NULL);
CREATE FUNCTION rp.sums() RETURNS text LANGUAGE sql AS $$SELECT string_agg(s::text, ' ' ORDER BY id) FROM sums AS s$$;
CREATE FUNCTION rp.append(n integer) RETURNS bigint LANGUAGE sql AS
	$$SELECT max(version) FROM generate_series(1, n) AS i, cqrs_es.append_event('rp', (i % 3)::text, 'made', jsonb_build_object('i', i))$$;
SELECT cqrs_es.create_projection('rp', '{rp}', '{sums}') IS NULL AS x,
	cqrs_es.define_handler('rp', 'made', $$INSERT INTO sums VALUES (event.aggregate_id, 1, md5(event.payload->>'i'))
		ON CONFLICT (id) DO UPDATE SET n = sums.n + 1, trail = md5(sums.trail || (event.payload->>'i'))$$) IS NULL AS y \gset
SELECT rp.append(100) AS x, rp.sums() AS before \gset
CREATE FUNCTION rp.state() RETURNS text LANGUAGE sql AS
	$$SELECT format('%s, handled to %s', state, (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rp' AND global_position <= last_position)) FROM cqrs_es.projection_status WHERE name = 'rp'$$;

-- from the beginning to the end
CALL cqrs_es.rebuild_in_portions('rp', 7);
SELECT is(rp.sums(), :'before', 'in portions of 7');
SELECT is(rp.state(), 'live, handled to 100', 'it is live again');
CALL cqrs_es.rebuild_in_portions('rp', 1);
SELECT is(rp.sums(), :'before', 'in portions of 1');
CALL cqrs_es.rebuild_in_portions('rp');
SELECT is(rp.sums(), :'before', 'in one portion');
CALL cqrs_es.rebuild_in_portions('rp', 100);
SELECT is(rp.sums(), :'before', 'in one that is just as large');
SELECT rp.append(10) AS x, rp.sums() AS before \gset
SELECT cqrs_es.pause_projection('rp') IS NULL AS x, rp.append(20) AS y \gset
CALL cqrs_es.rebuild_in_portions('rp', 7);
SELECT is(rp.state(), 'paused, handled to 130', 'one that was paused stays so');
CALL cqrs_es.resume_in_portions('rp', 7);
SELECT is(rp.state(), 'live, handled to 130', 'until it is resumed');
SELECT cqrs_es.pause_projection('rp') IS NULL AS x, rp.append(20) AS y \gset
CALL cqrs_es.resume_in_portions('rp', 7);
SELECT is(rp.state(), 'live, handled to 150', 'which portions can do, too');
SELECT rp.sums() AS before, cqrs_es.rebuild_projection('rp') > 0 AS x \gset
SELECT is(rp.sums(), :'before', 'a rebuild in one transaction gives the same');
CALL cqrs_es.resume_in_portions('rp', 7);
SELECT is(rp.state(), 'live, handled to 150', 'one that is not paused is left as it is');

-- where nothing can be committed
SELECT throws_ok($$CALL cqrs_es.rebuild_in_portions('rp')$$, '25001', NULL, 'in a function');
BEGIN;
\set statements 'BEGIN; CALL cqrs_es.rebuild_in_portions(''rp''); ROLLBACK;'
\i test/include/session.sql
ROLLBACK;
SELECT is(:'answer'::text, 'ERROR:  25001', 'in a transaction block');
\set statements 'SET default_transaction_isolation = ''repeatable read''; CALL cqrs_es.rebuild_in_portions(''rp'');'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  25001', 'above READ COMMITTED');
\set statements 'CALL cqrs_es.rebuild_in_portions(''rp'', 0); CALL cqrs_es.rebuild_in_portions(''rp'', NULL); CALL cqrs_es.rebuild_in_portions(''rp'', on_error => ''x''); CALL cqrs_es.rebuild_in_portions(''none'');'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  22023\nERROR:  22004\nERROR:  22023\nERROR:  42704', 'arguments that are none');
SELECT is(rp.state(), 'live, handled to 150', 'nothing has happened');
SELECT is(rp.sums(), :'before', 'to no row');

-- interrupted by an event that fails
SELECT version FROM cqrs_es.append_event('rp', '1', 'other', '{}') \gset
SELECT rp.append(20) AS x \gset
SELECT cqrs_es.define_handler('rp', 'other', $$UPDATE sums SET n = n / 0$$) IS NULL AS y \gset
\set statements 'CALL cqrs_es.rebuild_in_portions(''rp'', 7);'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  QE201', 'an event that fails ends it');
SELECT is(rp.state(), 'partly rebuilt, handled to 147', 'the portions before are there');
SELECT is((SELECT sum(n) FROM sums), 147::numeric, 'in the table');
SELECT rp.append(3) AS x \gset
CALL cqrs_es.resume_in_portions('rp', 7, on_error => 'skip');
SELECT is(rp.state(), 'live, handled to 174', 'it goes on from there');
SELECT is((SELECT sum(n) FROM sums), 173::numeric, 'each event once');
SELECT is((SELECT format('%s %s', event_type, activity) FROM cqrs_es.skipped_events WHERE projection = 'rp'), 'other rebuild', 'but the one');
\set statements 'CALL cqrs_es.rebuild_in_portions(''rp'', 7);'
\i test/include/session.sql
SELECT is((SELECT count(*) FROM cqrs_es.skipped_events WHERE projection = 'rp'), 0::bigint, 'another rebuild forgets it');
SELECT cqrs_es.drop_handler('rp', 'other') IS NULL AS x, cqrs_es.resume_projection('rp') > 0 AS y \gset
SELECT is(rp.state(), 'live, handled to 174', 'resume_projection goes on as well');
SELECT is((SELECT sum(n) FROM sums), 173::numeric, 'each event once');
SELECT rp.sums() AS before, cqrs_es.rebuild_projection('rp') > 0 AS x \gset
SELECT is(rp.sums(), :'before', 'a rebuild in one transaction gives the same');

-- one that was live is live after the rebuild, however often it was begun; one that was paused is paused
SELECT cqrs_es.define_handler('rp', 'other', $$UPDATE sums SET n = n / 0$$) IS NULL AS y \gset
SELECT rp.sums() AS before \gset
\set interrupted 'CALL cqrs_es.rebuild_in_portions(''rp'', 7);'
\set statements :interrupted
\i test/include/session.sql
\i test/include/session.sql
SELECT is(rp.state(), 'partly rebuilt, handled to 147', 'it is interrupted twice');
CALL cqrs_es.rebuild_in_portions('rp', 7, on_error => 'skip');
SELECT is(rp.state(), 'live, handled to 174', 'and live at the end of the third');
SELECT is(rp.sums(), :'before', 'with the same rows');
\i test/include/session.sql
SELECT cqrs_es.rebuild_projection('rp', on_error => 'skip') IS NULL AS x \gset
SELECT is(rp.state(), 'live, handled to 174', 'also at the end of a rebuild in one transaction');
SELECT is(rp.sums(), :'before', 'with the same rows');
SELECT is((SELECT count(*) FROM cqrs_es.projections WHERE live_after), 0::bigint, 'of which nothing is remembered');
SELECT cqrs_es.pause_projection('rp') IS NULL AS x \gset
\i test/include/session.sql
CALL cqrs_es.rebuild_in_portions('rp', 7, on_error => 'skip');
SELECT is(rp.state(), 'paused, handled to 174', 'one that was paused is paused');
SELECT cqrs_es.resume_projection('rp') IS NULL AS x \gset
\i test/include/session.sql
SELECT is(rp.state(), 'partly rebuilt, handled to 147', 'one that is live is interrupted');
SELECT cqrs_es.pause_projection('rp') IS NULL AS x \gset
SELECT is(rp.state(), 'partly rebuilt, handled to 147', 'and paused');
CALL cqrs_es.rebuild_in_portions('rp', 7, on_error => 'skip');
SELECT is(rp.state(), 'paused, handled to 174', 'it stays so');
SELECT cqrs_es.resume_projection('rp') IS NULL AS x, cqrs_es.drop_handler('rp', 'other') IS NULL AS y \gset

-- handlers that append: not for old events, also when a rebuild that was interrupted is resumed
CREATE TABLE rp.seen (position bigint);
CREATE FUNCTION rp.react(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES (e.global_position);
	IF e.sequence > 50 THEN
		PERFORM cqrs_es.append_event('rp reaction', e.aggregate_id, 'reacted', '{}');
	END IF;
END $$;
SELECT cqrs_es.create_projection('reactor', '{rp}', '{seen}') IS NULL AS x, cqrs_es.define_handler('reactor', 'made', 'react(cqrs_es.event)') IS NULL AS y \gset
\set statements 'CALL cqrs_es.rebuild_in_portions(''reactor'', 7);'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  QE201', 'a handler that appends');
\set statements 'CALL cqrs_es.resume_in_portions(''reactor'', 7); SELECT cqrs_es.resume_projection(''reactor'');'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  QE201\nERROR:  QE201', 'nor when it goes on');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rp reaction'), 0::bigint, 'nothing was appended');
SELECT cqrs_es.drop_projection('reactor') IS NULL AS x \gset
TRUNCATE rp.seen;
SELECT cqrs_es.create_projection('reactor', '{rp}', '{seen}', backfill => true) IS NULL AS x, cqrs_es.define_handler('reactor', 'made', 'react(cqrs_es.event)') IS NULL AS y \gset
CALL cqrs_es.resume_in_portions('reactor', 7);
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rp reaction'), (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rp' AND event_type = 'made' AND sequence > 50), 'events that are handled for the first time may be appended for');
SELECT is((SELECT count(*) FROM rp.seen), 173::bigint, 'each once');
SELECT cmp_ok((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rp reaction'), '>', 0::bigint, 'there are some');
SELECT is((SELECT state FROM cqrs_es.projection_status WHERE name = 'reactor'), 'live', 'and it is live');

-- handlers that cannot run: found out before the empty table is committed
CREATE ROLE cqrs_es_filler;
CREATE TABLE rp.filled (position bigint);
GRANT USAGE ON SCHEMA rp, cqrs_es TO cqrs_es_filler;
GRANT ALL ON rp.filled TO cqrs_es_filler;
SELECT cqrs_es.create_projection('filled', '{rp}', '{filled}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('filled', 'made', 'INSERT INTO filled VALUES (event.global_position)') IS NULL AS y,
	cqrs_es.alter_projection('filled', owner => 'cqrs_es_filler') IS NULL AS z \gset
SELECT cqrs_es.resume_projection('filled') AS x, count(*) AS filled FROM rp.filled \gset
SELECT count(*) AS filled FROM rp.filled \gset
UPDATE cqrs_es.handlers SET definer = 'cqrs_es_filler'::regrole, definer_name = 'cqrs_es_filler' WHERE projection = 'filled';
REVOKE INSERT ON rp.filled FROM cqrs_es_filler;
\set statements 'CALL cqrs_es.rebuild_in_portions(''filled'', 7);'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'a handler that may not write ends a rebuild before it begins');
SELECT is((SELECT count(*) FROM rp.filled), :filled::bigint, 'the table is as it was');
SELECT is((SELECT state FROM cqrs_es.projection_status WHERE name = 'filled'), 'live', 'the projection too');
GRANT INSERT ON rp.filled TO cqrs_es_filler;
CALL cqrs_es.rebuild_in_portions('filled', 7);
SELECT is((SELECT count(*) FROM rp.filled), :filled::bigint, 'with the right it is rebuilt');
SELECT cqrs_es.drop_projection('filled') IS NULL AS x \gset
DROP TABLE rp.filled;
DROP OWNED BY cqrs_es_filler;
DROP ROLE cqrs_es_filler;

SELECT cqrs_es.drop_projection(name) IS NULL AS x FROM cqrs_es.projections WHERE name IN ('rp', 'reactor')
\g /dev/null
SELECT * FROM finish();
SET client_min_messages = error;
DROP SCHEMA rp CASCADE;
