-- 330_dispatch: what follows from a new row.  One AFTER ROW trigger does the
-- work; the same function at the end of the statement tells of the events that
-- were appended by those it had told.

CREATE FUNCTION cqrs_es.dispatch_event() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_dispatch_event';
COMMENT ON FUNCTION cqrs_es.dispatch_event() IS
    'internal: trigger of the log: runs projections and takes snapshots';
REVOKE EXECUTE ON FUNCTION cqrs_es.dispatch_event() FROM PUBLIC;

CREATE TRIGGER dispatch_event AFTER INSERT ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.dispatch_event();
CREATE TRIGGER dispatch_event_queue AFTER INSERT ON cqrs_es.events
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.dispatch_event();
