-- 513_redaction: members of events are replaced, by rule

CREATE TABLE cqrs_es.redactions (
    global_position bigint NOT NULL,
    tenant_id       text COLLATE "C" NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    positions       bigint[] NOT NULL,
    pointers        text[] NOT NULL,
    reason          text NOT NULL,
    redacted_by     text NOT NULL,
    redacted_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (global_position, aggregate_type, aggregate_id, tenant_id)
);
COMMENT ON TABLE cqrs_es.redactions IS
    'what redact_stream and redact_event have done: who, when, why, and to which events; nothing of what stood there';
COMMENT ON COLUMN cqrs_es.redactions.global_position IS 'of the event $redacted that tells of it';
COMMENT ON COLUMN cqrs_es.redactions.positions IS 'of the events that were changed';
COMMENT ON COLUMN cqrs_es.redactions.pointers IS 'JSON pointers to what was replaced in them';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.redactions', '');

ALTER TABLE cqrs_es.redactions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.redactions
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.redactions IS
    'an ordinary role sees and writes rows of the current tenant';

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.redactions
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change('redactions');

CREATE FUNCTION cqrs_es.redact_stream(
    aggregate_type text,
    aggregate_id   text,
    pointers       text[],
    reason         text,
    replacement    jsonb DEFAULT 'null'
) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_redact_stream';
COMMENT ON FUNCTION cqrs_es.redact_stream(text, text, text[], text, jsonb) IS
    'replaces what JSON pointers like /payload/name or /metadata/user lead to, in all events of a stream that have it; appends an event $redacted that says so, and lets follow what held a copy; returns how many events were changed';
REVOKE EXECUTE ON FUNCTION cqrs_es.redact_stream(text, text, text[], text, jsonb) FROM PUBLIC;

CREATE FUNCTION cqrs_es.redact_event(
    global_position bigint,
    pointers        text[],
    reason          text,
    replacement     jsonb DEFAULT 'null'
) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_redact_event';
COMMENT ON FUNCTION cqrs_es.redact_event(bigint, text[], text, jsonb) IS
    'the same in the event at a position; returns how many events were changed';
REVOKE EXECUTE ON FUNCTION cqrs_es.redact_event(bigint, text[], text, jsonb) FROM PUBLIC;
