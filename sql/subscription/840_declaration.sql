-- 840_declaration: subscriptions are created, altered and dropped

CREATE FUNCTION cqrs_es.create_subscription(
    name            text,
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL,
    start_after     bigint DEFAULT 0,
    start_at_end    boolean DEFAULT false,
    ordering        text DEFAULT 'stream',
    on_failure      text DEFAULT NULL,
    max_attempts    integer DEFAULT 10,
    retry_delay     interval DEFAULT '1 s',
    retry_delay_max interval DEFAULT '5 min',
    lease           interval DEFAULT '30 s',
    consumer_role   regrole DEFAULT NULL,
    all_tenants     boolean DEFAULT false,
    tags            text[] DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_subscription';
COMMENT ON FUNCTION cqrs_es.create_subscription(text, text[], text[], bigint, boolean, text, text, integer, interval, interval, interval, regrole, boolean, text[]) IS
    'creates a subscription: which events its consumers get, from where in the log on, and what follows when one fails; the same again changes nothing';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_subscription(text, text[], text[], bigint, boolean, text, text, integer, interval, interval, interval, regrole, boolean, text[]) FROM PUBLIC;

CREATE FUNCTION cqrs_es.alter_subscription(
    name            text,
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL,
    on_failure      text DEFAULT NULL,
    max_attempts    integer DEFAULT NULL,
    retry_delay     interval DEFAULT NULL,
    retry_delay_max interval DEFAULT NULL,
    lease           interval DEFAULT NULL,
    consumer_role   regrole DEFAULT NULL,
    owner           regrole DEFAULT NULL,
    tags            text[] DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_alter_subscription';
COMMENT ON FUNCTION cqrs_es.alter_subscription(text, text[], text[], text, integer, interval, interval, interval, regrole, regrole, text[]) IS
    'changes a subscription; NULL: as it is, an empty array: no filter any more, role -: no consumer role. Another filter takes back what is in hand';
REVOKE EXECUTE ON FUNCTION cqrs_es.alter_subscription(text, text[], text[], text, integer, interval, interval, interval, regrole, regrole, text[]) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_subscription(name text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_subscription';
COMMENT ON FUNCTION cqrs_es.drop_subscription(text, boolean) IS
    'drops a subscription with its position and its dead letters; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_subscription(text, boolean) FROM PUBLIC;
