-- 490_event_type: which event types are in the log

CREATE FUNCTION cqrs_es.event_types(
    OUT aggregate_type text,
    OUT event_type     text,
    OUT events         bigint,
    OUT first_position bigint,
    OUT last_position  bigint
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_event_types';
COMMENT ON FUNCTION cqrs_es.event_types() IS
    'the event types in the log of the current tenant: how many events, and where the first and the last are';
