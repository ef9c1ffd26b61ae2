-- define_upcaster says when new events of a type must name their version.
BEGIN;
CREATE FUNCTION lift(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_object('count', payload->'quantity') $$;
SELECT cqrs_es.define_upcaster('Packed', '1', '2', 'lift(jsonb)');
SELECT cqrs_es.define_upcaster('Packed', '2', '3', 'lift(jsonb)');
SELECT cqrs_es.drop_upcaster('Packed', '2');
SELECT cqrs_es.define_upcaster('Sent', '2', '3', 'lift(jsonb)');
SELECT cqrs_es.define_upcaster('Sent', '1', '2', 'lift(jsonb)');
-- none where an event without a version is not lifted
SELECT cqrs_es.define_upcaster('Made', 'V1', 'V2', 'lift(jsonb)');
ROLLBACK;
