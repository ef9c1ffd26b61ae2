-- pg_temp.fold: the state that operations make of an initial one, given an event.
CREATE SEQUENCE pg_temp.streams;
SELECT cqrs_es.create_aggregate('op', '{}', 0) IS NULL AS x \gset
CREATE FUNCTION pg_temp.fold(initial jsonb, operations jsonb, payload jsonb DEFAULT '{}', metadata jsonb DEFAULT '{}', type text DEFAULT 'op') RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE id text := 's' || nextval('pg_temp.streams');
BEGIN
	PERFORM cqrs_es.alter_aggregate(type, initial);
	PERFORM cqrs_es.define_reducer(type, 'done', operations);
	PERFORM cqrs_es.append_event(type, id, 'done', payload, NULL, metadata);
	RETURN cqrs_es.aggregate_state(type, id);
END $$;
