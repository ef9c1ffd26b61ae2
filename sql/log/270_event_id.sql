-- 270_event_id: UUIDs, new ones and those of a text

CREATE FUNCTION cqrs_es.new_event_id() RETURNS uuid
    LANGUAGE C VOLATILE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_new_event_id';
COMMENT ON FUNCTION cqrs_es.new_event_id() IS
    'a new version-7 UUID (RFC 9562), for clients that want to know an event''s id before they append it';

CREATE FUNCTION cqrs_es.id_from_text(value text, namespace uuid DEFAULT '4de55be9-49ef-4b04-acc0-7cbc3cb08d84') RETURNS uuid
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_id_from_text';
COMMENT ON FUNCTION cqrs_es.id_from_text(text, uuid) IS
    'the version-5 UUID (RFC 9562) of a text in a namespace, always the same: an event_id or command_id of what has an id that is no UUID';
