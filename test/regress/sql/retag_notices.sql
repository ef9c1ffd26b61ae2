-- Who defines tags when the log has such events already is told who has passed these: subscriptions
-- and projections that want events with such tags, of such types.
\set VERBOSITY terse
\set SHOW_CONTEXT never
CREATE TABLE passed (n bigint);
CREATE FUNCTION make(called text, tags text[], mode text DEFAULT 'sync', type text DEFAULT '*', backfill boolean DEFAULT false) RETURNS void LANGUAGE sql AS $$
    SELECT cqrs_es.create_projection(called, read_models => '{passed}', mode => mode, tags => tags, backfill => backfill);
    SELECT cqrs_es.define_handler(called, type, 'INSERT INTO public.passed VALUES (event.global_position)') $$;
SELECT count(cqrs_es.append_event('retag', s, s, '{"n": 1}')) FROM unnest('{front,Old,behind,last}'::text[]) AS s;
SELECT max(global_position) FILTER (WHERE event_type = 'front') AS front, max(global_position) FILTER (WHERE event_type = 'Old') AS old FROM cqrs_es.events \gset
-- nobody follows any tags
SELECT cqrs_es.create_subscription('s: no tags', start_at_end => true);
SELECT cqrs_es.define_tags('Old', 'zero');
-- by position, tag and type
SELECT cqrs_es.create_subscription('s: at the event', start_after => :old, tags => '{a}');
SELECT cqrs_es.create_subscription('s: before it', start_after => :front, tags => '{a}');
SELECT cqrs_es.create_subscription('s: at the beginning', start_after => 0, tags => '{a}');
SELECT cqrs_es.create_subscription('s: another tag', start_at_end => true, tags => '{b}');
SELECT cqrs_es.create_subscription('s: of two tags', start_at_end => true, tags => '{b,n:1}');
SELECT cqrs_es.create_subscription('s: of the type', start_at_end => true, event_types => '{Old,New}', tags => '{a}');
SELECT cqrs_es.create_subscription('s: of another type', start_at_end => true, event_types => '{last}', tags => '{a}');
SET client_min_messages = error;
SELECT make('p: appended to', '{a}'), make('p: of the type', '{a}', type => 'Old'), make('p: of another type', '{a}', type => 'last'),
    make('p: another tag', '{b}'), make('p: nothing yet', '{a}', backfill => true), make('p: paused', '{a}'), make('p: async', '{a}', mode => 'async'),
    make('p: async, nothing yet', '{a}', mode => 'async', backfill => true) \g /dev/null
SELECT cqrs_es.pause_projection('p: paused');
RESET client_min_messages;
SELECT cqrs_es.define_tags('Old', 'a', 'n:{/n}');
-- what is there already is no news
SELECT cqrs_es.define_tags('Old', 'a', 'n:{/n}');
CALL cqrs_es.retag();
SELECT cqrs_es.define_tags('Old', 'a');
SELECT cqrs_es.define_tags('Old', 'a', 'n:{/n}');
-- ... or takes retag a second time, and those who follow what was added know
CALL cqrs_es.retag();
SELECT cqrs_es.define_tags('Old', 'a', 'b', 'n:{/n}');
CALL cqrs_es.retag();
-- what is in hand counts as passed
SELECT count(*) FROM cqrs_es.receive_events('s: at the beginning', 'c');
SELECT cqrs_es.define_tags('behind', 'a');
CALL cqrs_es.retag();
-- nothing has the type, or what has it comes behind all who follow
SELECT cqrs_es.define_tags('New', 'a');
SELECT cqrs_es.drop_tags('New');
SELECT cqrs_es.create_subscription('s: c', start_at_end => true, tags => '{c}');
SELECT version FROM cqrs_es.append_event('retag', 'new', 'New', '{}');
SELECT cqrs_es.define_tags('New', 'c');
