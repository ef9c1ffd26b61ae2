-- 870_control: subscriptions are paused, resumed, and set to another position

CREATE FUNCTION cqrs_es.pause_subscription(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_pause_subscription';
COMMENT ON FUNCTION cqrs_es.pause_subscription(text) IS
    'nothing is handed out any more until resume_subscription(); what is in hand can be acknowledged';
REVOKE EXECUTE ON FUNCTION cqrs_es.pause_subscription(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.resume_subscription(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_resume_subscription';
COMMENT ON FUNCTION cqrs_es.resume_subscription(text) IS
    'goes on with a subscription that is paused, or that stopped since an event failed';
REVOKE EXECUTE ON FUNCTION cqrs_es.resume_subscription(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.reset_subscription(name text, start_after bigint) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_reset_subscription';
COMMENT ON FUNCTION cqrs_es.reset_subscription(text, bigint) IS
    'goes on behind a position, 0 for the beginning: what is in hand is taken back, nothing is parked or blocked any more';
REVOKE EXECUTE ON FUNCTION cqrs_es.reset_subscription(text, bigint) FROM PUBLIC;
