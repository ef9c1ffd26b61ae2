-- 400_horizon: up to which global position is the log settled?

CREATE FUNCTION cqrs_es.settled_position() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_settled_position';
COMMENT ON FUNCTION cqrs_es.settled_position() IS
    'the position of this node''s last settled event: whatever reads after that sees all that will ever be at or below it';

CREATE FUNCTION cqrs_es.wait_for_position(global_position bigint, timeout interval DEFAULT '10 seconds') RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT
    AS 'MODULE_PATHNAME', 'cqrs_es_wait_for_position';
COMMENT ON FUNCTION cqrs_es.wait_for_position(bigint, interval) IS
    'waits until everything up to a position is settled here; false when time ran out; holds back vacuum meanwhile, unlike CALL wait_until_settled';
