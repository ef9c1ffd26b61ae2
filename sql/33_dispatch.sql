-- 33_dispatch: the one AFTER ROW trigger

CREATE FUNCTION cqrs_es.dispatch_event() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_dispatch_event';
COMMENT ON FUNCTION cqrs_es.dispatch_event() IS
    'row trigger of the log: runs projections and takes snapshots';
REVOKE EXECUTE ON FUNCTION cqrs_es.dispatch_event() FROM PUBLIC;

CREATE TRIGGER dispatch_event AFTER INSERT ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.dispatch_event();
