-- 250_position: global positions.  CACHE 1 is a must: see src/log/position.c

CREATE SEQUENCE cqrs_es.events_global_position_seq
    AS bigint MINVALUE 1 MAXVALUE 17592186044415 NO CYCLE CACHE 1;
COMMENT ON SEQUENCE cqrs_es.events_global_position_seq IS
    'numbers of global positions (44 bits); only next_position draws from it';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.events_global_position_seq', '');

CREATE FUNCTION cqrs_es.next_position() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_next_position';
COMMENT ON FUNCTION cqrs_es.next_position() IS
    'internal: draws a global position; the default of events.global_position, not meant to be called by hand';
