-- 930_promotion: a projection takes the place of another

CREATE FUNCTION cqrs_es.promote_projection(name text, replaces text, views regclass[] DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_promote_projection';
COMMENT ON FUNCTION cqrs_es.promote_projection(text, text, regclass[]) IS
    'lets a projection take the place of another: it catches up, goes on in the mode of that, which is paused, and the views read its tables instead, each the one that was declared at the same place; all in this transaction, readers see the one or the other';
REVOKE EXECUTE ON FUNCTION cqrs_es.promote_projection(text, text, regclass[]) FROM PUBLIC;
