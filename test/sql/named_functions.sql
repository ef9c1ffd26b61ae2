\i test/include/setup.sql
-- A function may be given by its name or by its signature, as a text or as a
-- regprocedure, to all that define something; and what is none is called by its name.
BEGIN;
SELECT plan(61);
SET LOCAL client_min_messages = error;
CREATE SCHEMA "nf Schema";
SET LOCAL search_path = "nf Schema", public;
CREATE FUNCTION nf_r(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT $1 || '{"seen": true}'$$;
CREATE FUNCTION nf_d(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '{"type": "X"}'::jsonb$$;
CREATE FUNCTION nf_u(jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT $1$$;
CREATE FUNCTION nf_h(cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT$$;
CREATE FUNCTION "nf ""D"(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '[]'::jsonb$$;
CREATE FUNCTION nf_d(text) RETURNS jsonb LANGUAGE sql AS $$SELECT '[]'::jsonb$$;
SELECT cqrs_es.create_aggregate('nf'), cqrs_es.create_projection('nf') \gset x_

SELECT is(pg_temp.state_of(format('SELECT cqrs_es.' || call, given)), 'none', format(call, given))
FROM (VALUES (1, $$define_reducer('nf', 'X', %L)$$, 'nf_r', '(jsonb, cqrs_es.event)'), (2, $$define_command('nf', 'C', %L)$$, 'nf_d', '(jsonb, jsonb)'),
	(3, $$define_upcaster('X', '1', '2', %L)$$, 'nf_u', '(jsonb)'), (4, $$define_handler('nf', 'X', %L)$$, 'nf_h', '(cqrs_es.event)')) c (n, call, name, args),
	LATERAL (VALUES (1, name), (2, name || args), (3, '"nf Schema".' || name), (4, '"nf Schema".' || name || args), (5, upper(name) || upper(args)), (6, '"' || name || '"' || replace(args, ' ', ''))) g (m, given)
ORDER BY n, m;
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.' || call, given), '{state,message}'), ARRAY['42883', format('function %s%s does not exist', given, args)], format(call, given))
FROM (VALUES (1, $$define_reducer('nf', 'X', %L)$$, '(jsonb, cqrs_es.event)'), (3, $$define_upcaster('X', '1', '2', %L)$$, '(jsonb)'),
	(4, $$define_handler('nf', 'X', %L)$$, '(cqrs_es.event)')) c (n, call, args), (VALUES (1, 'upper'), (2, 'nf_none'), (3, 'public.nf_none')) g (m, given)
ORDER BY n, m;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_command('nf', 'C', '"nf ""D"')$$), 'none', 'a name with a quote in it');
SELECT is(decider, $$"nf Schema"."nf ""D"(state, command)$$, 'is kept whole') FROM cqrs_es.commands WHERE aggregate_type = 'nf';

-- what looks like one and is an expression
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.define_command('nf', 'C', %L)$$, given)), 'none', 'an expression: ' || given)
FROM (VALUES (1, 'command'), (2, 'state'), (3, 'Metadata'), (4, 'nf_d(state, command)'), (5, 'nf_d(aggregate_id)'), (6, ' command '), (7, '"state"'), (8, 'NULL::jsonb'), (9, E'nf_d(\n\taggregate_id)'), (10, 'nf_d(aggregate_id)')) g (n, given) ORDER BY n;
SELECT is(decider, 'nf_d(aggregate_id)', 'it stays as it was written') FROM cqrs_es.commands WHERE aggregate_type = 'nf';
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.' || call, given)), state, format(call, given) || ', a word of SQL')
FROM (VALUES (1, $$define_command('nf', 'C', %L)$$, 'NULL', '42804'), (2, $$define_command('nf', 'C', %L)$$, ' current_user ', '42804'), (3, $$define_handler('nf', 'X', %L)$$, 'Commit', '0A000')) c (n, call, given, state) ORDER BY n;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_reducer('nf', 'X', '')$$), '22023', 'an empty reducer');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_reducer('nf', 'X', '5 ')$$), '42883', 'a number');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_upcaster('X', '1', '2', NULL::text)$$), '22004', 'null');
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.' || call, given), '{state,message,hint}'), ARRAY['42602', format('"%s" is no name of a function', given),
	'Give its name alone, or with the types of its arguments behind it, as in ''my_schema.my_function(jsonb, jsonb)''.'], format(call, given))
FROM (VALUES (1, $$define_reducer('nf', 'X', %L)$$), (2, $$define_upcaster('X', '1', '2', %L)$$)) c (n, call), (VALUES (1, 'upper('), (2, 'upper(jsonb'), (3, ' (jsonb)')) g (m, given) ORDER BY n, m;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_reducer('nf', 'X', 'nf_r(jsonb,)')$$), '22P02', 'a type that is missing');
CREATE FUNCTION "nf (r"(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT $1$$;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_reducer('nf', 'Y', ' "nf (r" (jsonb, cqrs_es.event) ')$$), 'none', 'a name with a parenthesis in it');

-- they work
SELECT cqrs_es.define_command('nf', 'C', 'nf_d') \gset x_
SELECT is((SELECT state FROM cqrs_es.execute_command('nf', '1', 'C')), '{"seen": true}', 'a decider by its name, an event without a payload');
SELECT finish();
ROLLBACK;
