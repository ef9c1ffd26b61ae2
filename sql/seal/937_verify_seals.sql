-- 937_verify_seals: has anything been changed that is sealed?

CREATE FUNCTION cqrs_es.verify_seals(from_seal bigint DEFAULT NULL, to_seal bigint DEFAULT NULL)
    RETURNS TABLE (seal bigint, after_position bigint, up_to_position bigint, events bigint, found bigint,
        redacted bigint, removed bigint, problem text, detail text)
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_verify_seals';
COMMENT ON FUNCTION cqrs_es.verify_seals(bigint, bigint) IS
    'reads all that is sealed and compares: a row for each seal that holds, and one for each range that was altered, removed or inserted otherwise than by rule; problem NULL: nothing';
REVOKE EXECUTE ON FUNCTION cqrs_es.verify_seals(bigint, bigint) FROM PUBLIC;
