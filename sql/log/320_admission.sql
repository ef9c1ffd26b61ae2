-- 320_admission: the guards of the log

CREATE FUNCTION cqrs_es.admit_event() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_admit_event';
COMMENT ON FUNCTION cqrs_es.admit_event() IS
    'internal: row trigger of the log: holds INSERT and COPY to the rules of append_event';
REVOKE EXECUTE ON FUNCTION cqrs_es.admit_event() FROM PUBLIC;

CREATE FUNCTION cqrs_es.refuse_change() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_refuse_change';
COMMENT ON FUNCTION cqrs_es.refuse_change() IS
    'internal: trigger of the log, for the statement and for each row: refuses UPDATE, DELETE and TRUNCATE';
REVOKE EXECUTE ON FUNCTION cqrs_es.refuse_change() FROM PUBLIC;

CREATE TRIGGER admit_event BEFORE INSERT ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.events
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change();
-- for rows that are reached by another name: that of a partition, of a parent
CREATE TRIGGER refuse_change_of_row BEFORE UPDATE OR DELETE ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.refuse_change();
