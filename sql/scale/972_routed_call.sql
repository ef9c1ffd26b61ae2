-- 972_routed_call: what a call needs that a front sends here

CREATE FUNCTION cqrs_es.routed_stream(aggregate_type text, aggregate_id text, tenant_id text, context text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_routed_stream';
COMMENT ON FUNCTION cqrs_es.routed_stream(text, text, text, text) IS
    'stands for the aggregate_type of a call that was routed here: sets tenant and context for the transaction, unless they are NULL, and refuses streams of other servers (QE605); returns aggregate_type';

CREATE FUNCTION cqrs_es.routed_argument(argument anyelement, tenant_id text) RETURNS anyelement
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_routed_argument';
COMMENT ON FUNCTION cqrs_es.routed_argument(anyelement, text) IS
    'stands for an argument of a call that was routed here and concerns no single stream: sets the tenant for the transaction, unless it is NULL; returns the argument';

CREATE FUNCTION cqrs_es.position_here(positions bigint[]) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (SELECT coalesce(pg_catalog.max(p.p), 0) FROM pg_catalog.unnest(positions) AS p (p)
        WHERE p.p OPERATOR(pg_catalog.>>) 44
            OPERATOR(pg_catalog.=) coalesce(nullif(pg_catalog.current_setting('cqrs_es.node_id', true), '')::bigint, 0));
COMMENT ON FUNCTION cqrs_es.position_here(bigint[]) IS
    'of the positions of several nodes that of this one, 0 if there is none: where read_page goes on here';
