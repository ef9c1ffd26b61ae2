\i test/include/setup.sql
-- Projections for the events that have certain tags, rebuilt in portions; and tags that are defined when a
-- rebuild has passed events that get them.
SELECT plan(33);
SET client_min_messages = error;
CREATE FUNCTION pg_temp.make(called text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (at bigint PRIMARY KEY, n int)', called);
	EXECUTE format('SELECT cqrs_es.create_projection(%L, read_models => ARRAY[%L::regclass], tags => ''{rt:red}'' %s)', called, quote_ident(called), options);
	PERFORM cqrs_es.define_handler(called, '*', format('INSERT INTO public.%I VALUES (event.global_position, (event.payload ->> ''n'')::int)', called));
END $$;
CREATE FUNCTION pg_temp.has(called text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	numbers text;
BEGIN
	EXECUTE format('SELECT string_agg(n::text, '' '' ORDER BY at) FROM %I', called) INTO numbers;
	RETURN numbers;
END $$;
CREATE FUNCTION pg_temp.put(n int, tags text[] DEFAULT NULL, type text DEFAULT 'rt: plain') RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('rt', (n % 3)::text, type, jsonb_build_object('n', n), tags => put.tags)$$;
-- one event in the middle fails while there is such a handler
CREATE FUNCTION pg_temp.break(called text) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.define_handler(called, 'rt: middle', format('INSERT INTO public.%I VALUES (event.global_position, 1 / ((event.payload ->> ''n'')::int - 50))', called))$$;
CREATE FUNCTION pg_temp.mend(called text) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.drop_handler(called, 'rt: middle')$$;
CREATE FUNCTION pg_temp.is_now(called text) RETURNS text LANGUAGE sql AS
	$$SELECT format('%s %s', s.state, p.rebuilt_tags IS NOT NULL) FROM cqrs_es.projection_status AS s JOIN cqrs_es.projections AS p USING (name) WHERE name = called$$;

SELECT pg_temp.make('rt_sync', ''), pg_temp.make('rt_async', $$, mode => 'async'$$) \g /dev/null
SELECT pg_temp.put(1, '{rt:red}'), pg_temp.put(2), pg_temp.put(3, type => 'rt: old'), pg_temp.put(4, '{rt:blue}'), pg_temp.put(5, '{rt:red,rt:blue}') \g /dev/null
SELECT pg_temp.put(50, '{rt:red}', 'rt: middle'), pg_temp.put(51, '{rt:red}'), pg_temp.put(52), pg_temp.put(53, type => 'rt: old'), pg_temp.put(54, '{rt:red}') \g /dev/null
CALL cqrs_es.rebuild_in_portions('rt_sync', 1);
SELECT is(pg_temp.has('rt_sync'), '1 5 50 51 54', 'one event a portion');
SELECT is(pg_temp.is_now('rt_sync'), 'live f', '... it is live, and nothing is remembered');
CALL cqrs_es.rebuild_in_portions('rt_sync', 2);
SELECT is(pg_temp.has('rt_sync'), '1 5 50 51 54', 'two');
CALL cqrs_es.rebuild_in_portions('rt_async', 2);
SELECT is(pg_temp.has('rt_async'), '1 5 50 51 54', 'an asynchronous one');
SELECT cqrs_es.pause_projection('rt_sync') IS NULL AS x \gset
CALL cqrs_es.rebuild_in_portions('rt_sync', 2);
SELECT is(pg_temp.is_now('rt_sync'), 'paused f', 'one that was paused, at its end');
CALL cqrs_es.resume_in_portions('rt_sync', 2);

-- half of it, and nothing is defined meanwhile that concerns it
SELECT pg_temp.break('rt_sync') IS NULL AS x \gset
\set statements 'CALL cqrs_es.rebuild_in_portions(\'rt_sync\', 1);'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  QE201', 'interrupted');
SELECT is(pg_temp.is_now('rt_sync'), 'partly rebuilt t', '... how its tags are defined is remembered');
SELECT is(pg_temp.has('rt_sync'), '1 5', '... and what was done before stays');
SELECT cqrs_es.define_tags('rt: old', 'rt:green', 'rt:number {/n}') IS NULL AS x \gset
SELECT pg_temp.mend('rt_sync') IS NULL AS x \gset
CALL cqrs_es.resume_in_portions('rt_sync', 1);
SELECT is(pg_temp.has('rt_sync'), '1 5 50 51 54', 'other tags that old events lack do not matter');
CALL cqrs_es.retag();

-- half of it, and events that it has passed get its tag
SELECT pg_temp.break('rt_sync'), pg_temp.break('rt_async') \g /dev/null
\set statements 'CALL cqrs_es.rebuild_in_portions(\'rt_sync\', 1); CALL cqrs_es.rebuild_in_portions(\'rt_async\', 1);'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  QE201\nERROR:  QE201', 'interrupted again');
SELECT cqrs_es.define_tags('rt: old', 'rt:red', 'rt:green') IS NULL AS x \gset
SELECT pg_temp.mend('rt_sync'), pg_temp.mend('rt_async') \g /dev/null
\set statements 'CALL cqrs_es.resume_in_portions(\'rt_sync\', 1); CALL cqrs_es.rebuild_in_portions(\'rt_async\', 1);'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  55000\nERROR:  55000', 'nobody passes events that lack their tags');
SELECT is(pg_temp.has('rt_async'), '1 5', '... or empties a table');
CALL cqrs_es.retag();
SELECT is(pg_temp.error_of($$SELECT cqrs_es.resume_projection('rt_sync')$$, '{state,message,detail,hint}'),
	'{55000,"tags were defined since the rebuild of projection \"rt_sync\" began","Events that it has passed may have got tags that it is for.","CALL cqrs_es.rebuild_in_portions(''rt_sync'') begins it again."}',
	'who has passed events that have their tags now cannot go on');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.resume_projection('rt_async')$$), '55000', '... nor by itself, later');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.resume_projection('rt_async', on_error => 'skip')$$), '55000', '... nor with what fails left out');
\set statements 'CALL cqrs_es.resume_in_portions(\'rt_sync\', 1); CALL cqrs_es.resume_in_portions(\'rt_async\', 1); CALL cqrs_es.resume_in_portions(\'rt_async\', on_error => \'skip\');'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  55000\nERROR:  55000\nERROR:  55000', '... nor in portions');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.alter_projection('rt_async', mode => 'sync')$$), 'none', 'its mode may change');
SELECT is(pg_temp.is_now('rt_async'), 'partly rebuilt t', '... and it is remembered all the same');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.resume_projection('rt_async')$$), '55000', '... so it is refused in this one');
SELECT pg_temp.make('rt_live', ''), cqrs_es.rebuild_projection('rt_live') \g /dev/null
SELECT is(pg_temp.state_of($$SELECT cqrs_es.promote_projection('rt_async', replaces => 'rt_live')$$), '55000', 'nor does it take the place of another one');
CALL cqrs_es.rebuild_in_portions('rt_sync', 1);
CALL cqrs_es.rebuild_in_portions('rt_async', 1);
SELECT is(pg_temp.has('rt_sync'), '1 3 5 50 51 53 54', 'begun again');
SELECT is(pg_temp.is_now('rt_sync'), 'live f', '... it is live');
SELECT is(pg_temp.has('rt_async'), '1 3 5 50 51 53 54', '... the other one, too');

-- tags that nothing gives any more
SELECT pg_temp.break('rt_sync') IS NULL AS x \gset
\set statements 'CALL cqrs_es.rebuild_in_portions(\'rt_sync\', 1);'
\i test/include/session.sql
SELECT pg_temp.mend('rt_sync'), cqrs_es.drop_tags('rt: old') \g /dev/null
SELECT is(pg_temp.state_of($$SELECT cqrs_es.resume_projection('rt_sync')$$), '55000', 'definitions that are dropped');
SELECT is(cqrs_es.rebuild_projection('rt_sync'), 7::bigint, 'a rebuild in one transaction begins again, too');
SELECT is(pg_temp.has('rt_sync'), '1 3 5 50 51 53 54', '... events have the tags that they had');
SELECT is(pg_temp.is_now('rt_sync'), 'live f', '... nothing is remembered');

-- half of it, the rest by itself, and then tags are defined: the rebuild is over
SELECT cqrs_es.alter_projection('rt_async', mode => 'async'), pg_temp.break('rt_async') \g /dev/null
\set statements 'CALL cqrs_es.rebuild_in_portions(\'rt_async\', 1);'
\i test/include/session.sql
SELECT pg_temp.mend('rt_async'), cqrs_es.resume_projection('rt_async') \g /dev/null
SELECT is(pg_temp.has('rt_async'), '1 3 5', 'a part of it is done, and it goes on by itself');
CALL cqrs_es.run_projections('{rt_async}') \g /dev/null
SELECT is(pg_temp.has('rt_async'), '1 3 5 50 51 53 54', '... with the rest');
SELECT cqrs_es.define_tags('rt: plain', 'rt:red') IS NULL AS x \gset
CALL cqrs_es.retag();
SELECT cqrs_es.pause_projection('rt_async') IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.resume_projection('rt_async')$$), 'none', 'tags that are defined then are none of its business');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.alter_projection('rt_async', mode => 'sync')$$), 'none', '... in whatever mode');
SELECT cqrs_es.drop_tags('rt: plain') IS NULL AS x \gset

-- one without tags does not ask
SELECT is(pg_temp.state_of($$UPDATE cqrs_es.projections SET rebuilt_to = 1, rebuilt_tags = 1, paused = true, handled_position = 0, tags = NULL WHERE name = 'rt_sync'$$), '23514', 'nobody else remembers tags');

SELECT cqrs_es.drop_projection(name) FROM cqrs_es.projections WHERE name LIKE 'rt%' \g /dev/null
DROP TABLE rt_sync, rt_async, rt_live;
SELECT is((SELECT count(*) FROM cqrs_es.tag_definitions WHERE event_type LIKE 'rt:%'), 0::bigint, 'nothing is left');
SELECT * FROM finish();
