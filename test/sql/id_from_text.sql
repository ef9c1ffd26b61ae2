\i test/include/setup.sql
-- Ids of texts: version-5 UUIDs, as every language makes them.
BEGIN;
SELECT plan(13);
SELECT is(cqrs_es.id_from_text('www.example.com', '6ba7b810-9dad-11d1-80b4-00c04fd430c8'), '2ed6657d-e927-568b-95e1-2665a8aea6a2', 'the example of RFC 9562');
SELECT is(cqrs_es.id_from_text('evt_1NG8Du2eZvKYlo2CUI79vXWy'), '68022e35-555f-5e49-bb3f-d6ecbad36ca1', 'in our namespace: what uuid5 of Python says');
SELECT is(cqrs_es.id_from_text('schlüssel ✓ 😀'), 'b5cbd3c0-0f1b-536e-8134-7ffbe4a7a4a5', 'of its UTF-8');
SELECT is(cqrs_es.id_from_text(''), '6abda3f3-10a1-50e5-8693-d3dea6c057e7', 'of an empty text');
SELECT is(cqrs_es.id_from_text('a') = cqrs_es.id_from_text('A'), false, 'of another text another one');
SELECT is(cqrs_es.id_from_text('a') = cqrs_es.id_from_text('a', gen_random_uuid()), false, 'and in another namespace');
SELECT is(pg_temp.error_of('SELECT cqrs_es.id_from_text(NULL)', '{state,message}'), '{22004,"value must not be null"}', 'a forgotten key is an error');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.id_from_text('a', NULL)$$, '{state,message}'), '{22004,"namespace must not be null"}', 'so is no namespace');
SELECT results_eq($$SELECT provolatile, proparallel FROM pg_proc WHERE oid = 'cqrs_es.id_from_text'::regproc$$, $$VALUES ('i'::"char", 's'::"char")$$, 'immutable and parallel safe');
SELECT is(count(DISTINCT cqrs_es.id_from_text(repeat('x', n), '4de55be9-49ef-4b04-acc0-7cbc3cb08d84')), 3000::bigint, 'of texts of many lengths') FROM generate_series(1, 3000) n;

-- A retry without a UUID, and creation once.
SELECT is((cqrs_es.append_event('idt', '1', 'X', '{}', event_id => cqrs_es.id_from_text('req-1'))).version, 1::bigint, 'an event with a key');
SELECT is((cqrs_es.append_event('idt', '1', 'X', '{}', event_id => cqrs_es.id_from_text('req-1'))).version, 1::bigint, 'is recognized when it is sent again');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('idt', '1', 'Y', '{}', event_id => cqrs_es.id_from_text('req-1'))$$), 'QE002', 'and told from another one');
SELECT finish();
ROLLBACK;
