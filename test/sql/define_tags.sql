\i test/include/setup.sql
-- Which tags events get from their payload: templates, what refuses an event, and what is
-- said of definitions themselves.
BEGIN;
SELECT plan(80);
SELECT cqrs_es.drop_tags('define_tags none', true) IS NULL AS x \gset
SELECT is_empty($$SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'cqrs_es.events'::regclass AND mode = 'ShareRowExclusiveLock'$$, 'to drop what is not there keeps nobody off the log');

-- The tags that an event with this payload gets by these templates.
CREATE FUNCTION pg_temp.tags_of(payload jsonb, VARIADIC templates text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE of_event bigint;
BEGIN
	PERFORM cqrs_es.define_tags('define_tags tried', VARIADIC templates);
	SELECT global_position INTO of_event FROM cqrs_es.append_event('define_tags', gen_random_uuid()::text, 'define_tags tried', payload);
	RETURN ARRAY(SELECT tag FROM cqrs_es.event_tags WHERE global_position = of_event ORDER BY tag);
END $$;
SET LOCAL client_min_messages = warning;

-- templates

SELECT is(pg_temp.tags_of(payload, VARIADIC templates), tags, name)
FROM (VALUES
	('a text of the payload', '{"id": "c1"}'::jsonb, ARRAY['course:{/id}'], '{course:c1}'::text[]),
	('in the middle', '{"id": "c1"}', ARRAY['a{/id}b'], '{ac1b}'),
	('alone', '{"id": "c1"}', ARRAY['{/id}'], '{c1}'),
	('a constant one', '{}', '{invoices}', '{invoices}'),
	('none', '{"id": 1}', '{}', '{}'),
	('several', '{"a": "x", "b": "y"}', ARRAY['a:{/a}', 'b:{/b}'], '{a:x,b:y}'),
	('the same one twice', '{"a": "x", "b": "x"}', ARRAY['t:{/a}', 't:{/b}'], '{t:x}'),
	('two values in one', '{"a": "x", "b": "y"}', ARRAY['{/a}/{/b}'], '{x/y}'),
	('two values without anything between', '{"a": "x", "b": "y"}', ARRAY['{/a}{/b}'], '{xy}'),
	('deeper', '{"a": {"b": [{"c": 7}]}}', ARRAY['n:{/a/b/0/c}'], '{n:7}'),
	('a number', '{"id": 12.50}', ARRAY['n:{/id}'], '{n:12.50}'),
	('a large one', '{"id": 12345678901234567890}', ARRAY['n:{/id}'], '{n:12345678901234567890}'),
	('a boolean', '{"id": true, "no": false}', ARRAY['b:{/id}{/no}'], '{b:truefalse}'),
	('an array', '{"ids": ["b", "a", 3, true, "a"]}', ARRAY['s:{/ids}'], '{s:3,s:a,s:b,s:true}'),
	('an empty one', '{"ids": []}', ARRAY['s:{/ids}'], '{}'),
	('two arrays: each with each', '{"a": [1, 2], "b": ["x", "y"]}', ARRAY['{/a}{/b}'], '{1x,1y,2x,2y}'),
	('an array and an empty one', '{"a": [1, 2], "b": []}', ARRAY['{/a}{/b}'], '{}'),
	('an element of an array', '{"a": [1, 2]}', ARRAY['e:{/a/1}'], '{e:2}'),
	('an optional value that is there', '{"id": "c1"}', ARRAY['c:{/id?}'], '{c:c1}'),
	('... that is not', '{}', ARRAY['c:{/id?}', 'x'], '{x}'),
	('... that is null', '{"id": null}', ARRAY['c:{/id?}'], '{}'),
	('... behind a text', '{"id": "a"}', ARRAY['c:{/id/b?}'], '{}'),
	('... an array that is empty', '{"ids": []}', ARRAY['c:{/ids?}'], '{}'),
	('... an array', '{"ids": ["a", "b"]}', ARRAY['c:{/ids?}'], '{c:a,c:b}'),
	('... of a payload that is no object', '7', ARRAY['c:{/id?}'], '{}'),
	('... of two values', '{"a": 1}', ARRAY['{/a}{/b?}'], '{}'),
	('keys with a slash, a tilde, and none at all', '{"a/b": 1, "m~n": 2, "": 3}', ARRAY['{/a~1b}-{/m~0n}-{/}'], '{1-2-3}'),
	('braces', '{"id": 1}', ARRAY['{{{/id}}}'], ARRAY['{1}']),
	('an empty text within a tag', '{"id": ""}', ARRAY['c:{/id}'], '{c:}'),
	('255 bytes', jsonb_build_object('id', repeat('x', 253)), ARRAY['c:{/id}'], ARRAY['c:' || repeat('x', 253)]),
	('bytes, not characters', jsonb_build_object('id', repeat('é', 126)), ARRAY['c:{/id}'], ARRAY['c:' || repeat('é', 126)]),
	('1,000 of them', jsonb_build_object('ids', (SELECT jsonb_agg(i) FROM generate_series(1, 1000) i)), ARRAY['{/ids}'], ARRAY(SELECT i::text FROM generate_series(1, 1000) i ORDER BY i::text COLLATE "C"))
) AS t (name, payload, templates, tags);

-- an event that lacks a value, and tags that are none

SELECT is(pg_temp.error_of(format('SELECT pg_temp.tags_of(%L, %L)', payload, template), '{state,message}'), ARRAY[state, message], name)
FROM (VALUES
	('no value', '{"other": 1}', 'c:{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id}"'),
	('null', '{"id": null}', 'c:{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id}"'),
	('an object', '{"id": {"a": 1}}', 'c:{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id}"'),
	('an array with null in it', '{"id": ["a", null]}', 'c:{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id}"'),
	('an array in an array', '{"id": [["a"]]}', 'c:{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id}"'),
	('an element that is not there', '{"id": ["a"]}', 'c:{/id/1}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id/1}"'),
	('no number of an element', '{"id": ["a"]}', 'c:{/id/00}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id/00}"'),
	('behind a text', '{"id": "a"}', 'c:{/id/b}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id/b}"'),
	('a payload that is no object', '"id"', 'c:{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id}"'),
	('an empty tag', '{"id": ""}', '{/id}', 'QE502', 'an event of type "define_tags tried" has no value for tag "{/id}"'),
	('an optional array with null in it', '{"id": ["a", null]}', 'c:{/id?}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id?}"'),
	('an optional array of null', '{"id": [null]}', 'c:{/id?}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id?}"'),
	('an optional array with an object in it', '{"id": [1, {"a": 1}]}', 'c:{/id?}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id?}"'),
	('an optional array with an array in it', '{"id": [1, [2]]}', 'c:{/id?}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id?}"'),
	('an optional value that is an object', '{"id": {"a": 1}}', 'c:{/id?}', 'QE502', 'an event of type "define_tags tried" has no value for tag "c:{/id?}"'),
	('an optional tag that is empty', '{"id": ""}', '{/id?}', 'QE502', 'an event of type "define_tags tried" has no value for tag "{/id?}"'),
	('256 bytes', jsonb_build_object('id', repeat('x', 254))::text, 'c:{/id}', '22001', 'tag "c:{/id}" of an event of type "define_tags tried" is too long'),
	('1,001 of them', jsonb_build_object('id', (SELECT jsonb_agg(i) FROM generate_series(1, 1001) i))::text, 'c:{/id}', '54000', 'there cannot be more than 1000 tags'),
	('... of two arrays', jsonb_build_object('a', (SELECT jsonb_agg(i) FROM generate_series(1, 40) i))::text, '{/a}{/a}', '54000', 'there cannot be more than 1000 tags')
) AS t (name, payload, template, state, message);

-- what the error says

SELECT is(pg_temp.error_of(format('SELECT pg_temp.tags_of(%L, %L)', payload, template), '{detail,hint}'), ARRAY[detail, hint], name || ': detail and hint')
FROM (VALUES
	('no value', '{}', 'c:{/id}', 'At /id there is nothing; there must be a text, a number, a boolean or an array of these.', 'Where it may be lacking, and is to give no tag then, write {/id?}.'),
	('null', '{"id": null}', 'c:{/id}', 'At /id there is nothing; there must be a text, a number, a boolean or an array of these.', 'Where it may be lacking, and is to give no tag then, write {/id?}.'),
	('null in an array', '{"id": [null]}', 'c:{/id}', 'What is at /id is not a text, a number, a boolean or an array of these.', ''),
	('... an optional one', '{"id": ["a", null]}', 'c:{/id?}', 'What is at /id is not a text, a number, a boolean or an array of these.', ''),
	('an object', '{"id": {}}', 'c:{/id?}', 'What is at /id is not a text, a number, a boolean or an array of these.', ''),
	('an empty tag', '{"id": ""}', '{/id?}', 'At /id there is an empty text, and a tag has at least one character.', '')
) AS t (name, payload, template, detail, hint);

-- templates that are none

SELECT is(pg_temp.error_of(format('SELECT cqrs_es.define_tags(%L, %L)', 'define_tags', template)), ARRAY['22023', format('"%s" is no template of a tag', template), detail,
	'Write ''course:{/courseId}'', ''course:{/courseId?}'' where events may lack it, or a constant text; braces themselves twice.'], name)
FROM (VALUES
	('an empty one', '', 'It is empty.'),
	('a brace not closed', 'a{/b', 'A brace is opened and not closed.'),
	('a brace in a brace', 'a{/b{c}', 'A brace is opened and not closed.'),
	('a brace not opened', 'a}b', 'A brace is closed that was not opened.'),
	('no pointer', 'a{b}', 'What stands in braces is a JSON pointer into the payload, which begins with a slash.'),
	('nothing', 'a{}', 'What stands in braces is a JSON pointer into the payload, which begins with a slash.'),
	('only optional', 'a{?}', 'What stands in braces is a JSON pointer into the payload, which begins with a slash.'),
	('optional twice', 'a{/b??}', 'The question mark behind a pointer is written once.'),
	('a lonely tilde', 'a{/b~}', 'In a JSON pointer ~ is written as ~0, and / in a key as ~1.'),
	('256 bytes', repeat('x', 256), 'It is longer than 255 bytes, as long as a tag can be.')
) AS t (name, template, detail);
SELECT is(pg_temp.error_of('SELECT cqrs_es.define_tags(NULL, ''a'')', '{state,message}'), '{22004,"event_type must not be null"}', 'no type');
SELECT is(pg_temp.error_of('SELECT cqrs_es.define_tags(''define_tags'', VARIADIC NULL)', '{state,message}'), '{22004,"templates must not be null"}', 'null instead of templates');
SELECT is(pg_temp.error_of('SELECT cqrs_es.define_tags(''define_tags'', ''a'', NULL)', '{state,message}'), '{22004,"a template must not be null"}', 'a template that is null');
SELECT is(pg_temp.error_of('SELECT cqrs_es.define_tags(''define_tags'', VARIADIC ''{{a},{b}}'')', '{state,message}'), '{2202E,"templates must be a one-dimensional array"}', 'two dimensions');

-- definitions

SELECT is(pg_temp.error_of('SELECT cqrs_es.drop_tags(''define_tags none'')'), '{42704,"no tags are defined for event type \"define_tags none\"","",""}', 'nothing to drop');
SELECT lives_ok('SELECT cqrs_es.drop_tags(''define_tags none'', true)', '... with if_exists');
SELECT cqrs_es.define_tags('define_tags known') IS NULL AS x \gset
SELECT results_eq($$SELECT templates::text[], is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'define_tags known'$$, $$VALUES ('{}'::text[], true)$$, 'a type can be known without tags');
SELECT cqrs_es.define_tags('define_tags known', 'a', 'b') IS NULL AS x \gset
SELECT cqrs_es.drop_tags('define_tags known') IS NULL AS x \gset
SELECT (cqrs_es.append_event('define_tags', 'dropped', 'define_tags known', '{}')).global_position \gset
SELECT is_empty(format('SELECT tag FROM cqrs_es.event_tags WHERE global_position = %s', :global_position), 'what is dropped gives no more tags');

-- row security that is forced on an owner who is not above it: tags are of all tenants
CREATE ROLE define_tags_owner;
GRANT USAGE ON SCHEMA cqrs_es TO define_tags_owner;
SELECT set_config('cqrs_es.tenant_id', 'define_tags tenant', true) IS NULL AS x \gset
SELECT cqrs_es.append_event('define_tags', 'forced', 'define_tags forced', '{}') IS NULL AS x \gset
SELECT set_config('cqrs_es.tenant_id', '', true) IS NULL AS x \gset
SET LOCAL client_min_messages = error;
ALTER TABLE cqrs_es.events FORCE ROW LEVEL SECURITY;
ALTER TABLE cqrs_es.events OWNER TO define_tags_owner;
SELECT is(pg_temp.error_of('SELECT cqrs_es.define_tags(''define_tags forced'', ''a'')', '{state,message}'), '{42501,"query would be affected by row-level security policy for table \"events\""}', 'an owner who would see one tenant''s events only defines no tags');
ALTER ROLE define_tags_owner BYPASSRLS;
SELECT cqrs_es.define_tags('define_tags forced', 'a') IS NULL AS x \gset
SELECT results_eq($$SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'define_tags forced'$$, 'VALUES (false)', '... and who is above it sees all');
SET LOCAL client_min_messages = warning;

-- types of the extension
SELECT throws_ok($$SELECT cqrs_es.define_tags('$redacted', 'who:{/nobody}')$$, '42939', 'event type "$redacted" is reserved', 'what the extension appends is given no tags');
SELECT FROM cqrs_es.append_event('define_tags own', '1', 'e', '{"name": "Bob"}');
SELECT is(cqrs_es.redact_stream('define_tags own', '1', '{/payload/name}', 'r'), 1::bigint, 'nor kept from it by any that it lacks');

SELECT * FROM finish();
ROLLBACK;
