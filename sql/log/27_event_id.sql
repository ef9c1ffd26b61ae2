-- 27_event_id: version-7 UUIDs

CREATE FUNCTION cqrs_es.new_event_id() RETURNS uuid
    LANGUAGE C VOLATILE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_new_event_id';
COMMENT ON FUNCTION cqrs_es.new_event_id() IS
    'a new version-7 UUID (RFC 9562), for clients that want to know an event''s id before they append it';
