\i test/include/setup.sql
-- What held a copy of what is redacted follows: projections, tags, boundaries, errors of consumers; tenants and
-- rights.
BEGIN;
SELECT plan(39);
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SET LOCAL client_min_messages = warning;
SELECT FROM cqrs_es.create_aggregate('followed');

-- projections

CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE TABLE states_paused (LIKE states INCLUDING ALL);
CREATE TABLE states_async (LIKE states INCLUDING ALL);
CREATE TABLE told (id text PRIMARY KEY, name text);
CREATE TABLE told_async (LIKE told INCLUDING ALL);
CREATE TABLE untold (LIKE told INCLUDING ALL);
CREATE TABLE untold_all (payload jsonb);
CREATE TABLE tagged (LIKE told INCLUDING ALL);
CREATE TABLE unconcerned (LIKE told INCLUDING ALL);
SELECT FROM cqrs_es.create_projection('states', state_of => 'followed', read_models => '{states}');
SELECT FROM cqrs_es.create_projection('states paused', state_of => 'followed', read_models => '{states_paused}');
SELECT FROM cqrs_es.create_projection('states async', state_of => 'followed', read_models => '{states_async}', mode => 'async');
SELECT FROM unnest('{told,told_async,untold,tagged}'::text[]) AS name,
	cqrs_es.create_projection(name, '{followed}', ARRAY[name::regclass], mode => CASE name WHEN 'told_async' THEN 'async' END, tags => CASE name WHEN 'tagged' THEN '{t}'::text[] END),
	cqrs_es.define_handler(name, 'named', format('INSERT INTO %s VALUES (event.aggregate_id, event.payload->>''name'') ON CONFLICT (id) DO UPDATE SET name = excluded.name', name));
SELECT FROM unnest('{told,told_async,tagged}'::text[]) AS name, cqrs_es.define_handler(name, '$redacted', format('UPDATE %s SET name = NULL WHERE id = event.aggregate_id', name));
SELECT FROM cqrs_es.create_projection('untold_all', read_models => '{untold_all}'), cqrs_es.define_handler('untold_all', '*', 'INSERT INTO untold_all VALUES (event.payload)');
SELECT FROM cqrs_es.create_projection('unconcerned', '{followed}', '{unconcerned}'), cqrs_es.define_handler('unconcerned', 'other', 'INSERT INTO unconcerned VALUES (event.aggregate_id)');
SELECT FROM cqrs_es.append_event('followed', 'a', 'named', '{"name": "Bob", "n": 1}', tags => '{t}');
SELECT FROM cqrs_es.pause_projection('states paused');
SELECT FROM cqrs_es.append_event('followed', 'a', 'named', '{"name": "Bob"}');
CREATE FUNCTION pg_temp.missed() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(name, ', ' ORDER BY name) FROM cqrs_es.projection_status WHERE redaction_missed IS NOT NULL $$;
SELECT is(pg_temp.missed(), NULL, 'nothing has been redacted yet');
SELECT is(cqrs_es.redact_stream('followed', 'a', '{/payload/name}', 'wanted'), 2::bigint, 'redacted');
SELECT results_eq('SELECT version, payload FROM states', $$VALUES (3::bigint, '{"n": 1}'::jsonb)$$, 'the row of the state is folded anew');
SELECT is((SELECT string_agg(concat(id, ':', name), ' ') FROM told), 'a:', 'a handler for $redacted has been told');
SELECT is((SELECT name FROM untold), 'Bob', 'without one the name is still there');
SELECT is(pg_temp.missed(), 'states async, states paused, tagged, told_async, untold, untold_all', 'and it shows, also where events are passed by');
SELECT is((SELECT redaction_missed FROM cqrs_es.projection_status WHERE name = 'untold'), (SELECT max(global_position) FROM cqrs_es.redactions), 'which redaction it is');
SELECT FROM unnest('{untold,untold_all,tagged}'::text[]) AS name, cqrs_es.rebuild_projection(name);
SELECT is((SELECT name FROM untold), NULL, 'rebuilt, it is gone');
SELECT is((SELECT string_agg(concat(id, ':', name), ' ') FROM tagged), 'a:', 'also of one with tags');
SELECT is(pg_temp.missed(), 'states async, states paused, told_async', 'and does not show any more');
SELECT results_eq('SELECT version, payload FROM states_paused', $$VALUES (1::bigint, '{"n": 1, "name": "Bob"}'::jsonb)$$, 'a paused one has it');
SELECT FROM cqrs_es.resume_projection('states paused');
SELECT results_eq('SELECT version, payload FROM states_paused', $$VALUES (3::bigint, '{"n": 1}'::jsonb)$$, 'until it goes on');
SELECT is(pg_temp.missed(), 'states async, told_async', 'then it does not show either');

-- a mark of before stays, and a rebuild in between takes it away
SELECT FROM cqrs_es.append_event('followed', 'a', 'named', '{"name": "Bob"}');
SELECT FROM cqrs_es.redact_stream('followed', 'a', '{/payload/name}', 'wanted');
SELECT FROM cqrs_es.append_event('followed', 'b', 'named', '{"name": "Bob"}');
SELECT FROM cqrs_es.redact_stream('followed', 'b', '{/payload/name}', 'wanted');
SELECT is((SELECT redaction_missed FROM cqrs_es.projection_status WHERE name = 'untold'),
	(SELECT max(global_position) FROM cqrs_es.redactions WHERE aggregate_id = 'a'), 'the first that was missed');

-- skipped events, and what is called from within
INSERT INTO cqrs_es.skipped_events SELECT 'untold', aggregate_type, aggregate_id, tenant_id, sequence, global_position, event_type, '23505', 'Bob', 'Bob again', 'rebuild'
FROM cqrs_es.events WHERE aggregate_type = 'followed' AND sequence = 1;
SELECT FROM cqrs_es.append_event('followed', 'b', 'named', '{"name": "Bob"}');
SELECT FROM cqrs_es.redact_stream('followed', 'b', '{/payload/name}', 'wanted');
SELECT is((SELECT string_agg(concat_ws(':', aggregate_id, message, detail), ' ' ORDER BY aggregate_id) FROM cqrs_es.skipped_events), 'a:Bob:Bob again b:(redacted)', 'messages of the stream go');
SELECT FROM cqrs_es.define_handler('unconcerned', 'other', $$INSERT INTO unconcerned SELECT cqrs_es.redact_stream('followed', 'b', '{/payload}', 'r')$$);
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.append_event('followed', 'c', 'other', '{}')$$), 'QE201', 'not by a handler');

-- errors of consumers

INSERT INTO cqrs_es.parked_streams (subscription, aggregate_type, aggregate_id, tenant_id, slot, sequence, global_position, error)
VALUES ('s', 'followed', 'b', '', 0, 1, 1, 'Bob'), ('s', 'followed', 'other', '', 0, 1, 1, 'Eve');
INSERT INTO cqrs_es.dead_letters (subscription, tenant_id, aggregate_type, aggregate_id, slot, sequence, global_position, event_id, event_type, error, state)
VALUES ('s', '', 'followed', 'b', 0, 1, 1, cqrs_es.new_event_id(), 'named', 'Bob', 'skipped');
INSERT INTO cqrs_es.nacked_events (share, aggregate_type, aggregate_id, tenant_id, sequence, global_position, batch, attempts, error)
VALUES (1, 'followed', 'b', '', 1, 1, cqrs_es.new_event_id(), 1, 'Bob');
INSERT INTO cqrs_es.subscriptions (name, owner_name, paused, stopped_error) VALUES ('s', current_user, true, 'Bob'), ('t', current_user, true, 'Eve');
INSERT INTO cqrs_es.shares (subscription, slots, position, failed_position, error)
SELECT 's', repeat('1', 256)::bit(256), 0, max(global_position), 'Bob' FROM cqrs_es.events WHERE aggregate_id = 'b' AND event_type = 'named';
SELECT FROM cqrs_es.append_event('followed', 'b', 'named', '{"name": "Bob"}');
SELECT FROM cqrs_es.redact_stream('followed', 'b', '{/payload}', 'wanted');
SELECT is((SELECT string_agg(concat_ws(':', aggregate_id, error), ' ' ORDER BY aggregate_id) FROM cqrs_es.parked_streams), 'b:(redacted) other:Eve', 'of parked streams');
SELECT is((SELECT string_agg(error, ' ') FROM cqrs_es.dead_letters), '(redacted)', 'of dead letters');
SELECT is((SELECT string_agg(error, ' ') FROM cqrs_es.nacked_events), '(redacted)', 'of what failed in a batch in hand');
SELECT is((SELECT string_agg(error, ' ') FROM cqrs_es.shares WHERE subscription = 's'), '(redacted)', 'of shares in the order of the log');
SELECT is((SELECT string_agg(concat_ws(':', name, stopped_error), ' ' ORDER BY name) FROM cqrs_es.subscriptions WHERE name IN ('s', 't')), 's:(redacted) t:Eve', 'of subscriptions that they stopped');

-- tags

SELECT FROM cqrs_es.define_tags('mailed', 'mail:{/mail}', 'maybe:{/maybe?}');
SELECT FROM cqrs_es.append_event('followed', 't', 'mailed', '{"mail": "bob@x", "maybe": "m"}', tags => '{own}');
CREATE FUNCTION pg_temp.tags() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(tag, ' ' ORDER BY tag) FROM cqrs_es.event_tags WHERE event_type = 'mailed' $$;
SELECT is(pg_temp.tags(), 'mail:bob@x maybe:m own', 'tags of the payload');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.redact_stream('followed', 't', '{/payload/mail}', 'r')$$), 'QE502', 'no event loses a tag that all must have');
SELECT is(cqrs_es.redact_stream('followed', 't', '{/payload/mail}', 'r', '"gone"'), 1::bigint, 'a replacement makes another');
SELECT is(pg_temp.tags(), 'mail:gone maybe:m own', 'instead of it');
SELECT is(cqrs_es.redact_stream('followed', 't', '{/payload/maybe}', 'r'), 1::bigint, 'one that events may lack');
SELECT is(pg_temp.tags(), 'mail:gone own', 'is taken away');
SELECT is((SELECT count(*) FROM cqrs_es.read_matching('[{"tags": ["mail:gone"]}]')), 1::bigint, 'the event is found by its tags');
SELECT is((SELECT count(*) FROM cqrs_es.read_matching('[{"tags": ["mail:bob@x"]}]')), 0::bigint, 'and not by those that it had');
SELECT is((SELECT string_agg(item, ', ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL AND item LIKE '%tag%'), NULL, 'nothing is wrong with it');

-- boundaries

SELECT FROM cqrs_es.create_boundary('mails', '[{"types": ["mailed"], "tags": ["mail:{/mail}"]}]', snapshot_every => 1);
SELECT FROM cqrs_es.define_reducer('mails', 'mailed', '[{"op": "set", "path": "/name", "from": "/name"}]'::jsonb);
SELECT FROM cqrs_es.define_command('mails', 'Look', $$'[]'::jsonb$$);
SELECT FROM cqrs_es.append_event('followed', 'u', 'mailed', '{"mail": "eve@x", "name": "Eve"}');
SELECT FROM cqrs_es.execute_boundary('mails', 'Look', '{"mail": "eve@x"}');
SELECT is((SELECT payload->>'name' FROM cqrs_es.boundary_snapshots WHERE boundary = 'mails'), 'Eve', 'a boundary has a snapshot');
SELECT FROM cqrs_es.redact_stream('followed', 'u', '{/payload/name}', 'r');
SELECT is((SELECT count(*) FROM cqrs_es.boundary_snapshots WHERE boundary = 'mails'), 0::bigint, 'which goes');
SELECT is(cqrs_es.boundary_state('mails', '{"mail": "eve@x"}'), '{"name": null}', 'and the state is of what is there');

-- tenants, rights

CREATE ROLE redactor;
GRANT USAGE ON SCHEMA cqrs_es TO redactor;
GRANT SELECT, INSERT ON cqrs_es.events TO redactor;
SET LOCAL cqrs_es.tenant_id = 'x';
SELECT FROM cqrs_es.append_event('tenanted', 'v', 'other kind', '{"name": "Bob"}');
SET LOCAL cqrs_es.tenant_id = '';
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.redact_stream('tenanted', 'v', '{/payload/name}', 'r')$$), '42704', 'not of another tenant');
SELECT is(pg_temp.sqlstate_of(format($$SELECT cqrs_es.redact_event(%s, '{/payload/name}', 'r')$$, max(global_position))), '42704', 'nor by its position') FROM cqrs_es.events;
SET LOCAL ROLE redactor;
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.redact_stream('followed', 'u', '{/payload/name}', 'r')$$), '42501', 'who appends may not redact');
RESET ROLE;
GRANT EXECUTE ON FUNCTION cqrs_es.redact_stream TO redactor;
SET LOCAL cqrs_es.tenant_id = 'x';
SET LOCAL ROLE redactor;
SELECT is(cqrs_es.redact_stream('tenanted', 'v', '{/payload/name}', 'r'), 1::bigint, 'but who was granted it');
SELECT is(pg_temp.sqlstate_of($$SELECT FROM cqrs_es.redactions$$), '42501', 'what was done is for those who may see it');
RESET ROLE;
SELECT is((SELECT redacted_by || ' ' || tenant_id FROM cqrs_es.redactions ORDER BY redacted_at DESC LIMIT 1), 'redactor x', 'it is known who did');
SELECT * FROM finish();
ROLLBACK;
