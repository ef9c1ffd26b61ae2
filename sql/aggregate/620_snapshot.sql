-- 620_snapshot: stored states.  Columns and types are such that the statements
-- of the Rust crate postgres-es work on it.

CREATE TABLE cqrs_es.snapshots (
    aggregate_type   text COLLATE "C" NOT NULL,
    aggregate_id     text COLLATE "C" NOT NULL,
    tenant_id        text COLLATE "C" NOT NULL DEFAULT cqrs_es.current_tenant(),
    last_sequence    bigint NOT NULL CHECK (last_sequence >= 0),
    current_snapshot bigint NOT NULL CHECK (current_snapshot >= 0),
    payload          jsonb NOT NULL,
    fingerprint      bytea,
    last_event_at    timestamptz,
    created_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, last_sequence)
);
COMMENT ON TABLE cqrs_es.snapshots IS
    'states of aggregates, so that replay need not start at the first event';
COMMENT ON COLUMN cqrs_es.snapshots.last_sequence IS 'the last event that is in the state';
COMMENT ON COLUMN cqrs_es.snapshots.current_snapshot IS 'a number that rises with every snapshot of the stream';
COMMENT ON COLUMN cqrs_es.snapshots.fingerprint IS
    'of the reducers that made it; a snapshot with another one is not used';
COMMENT ON COLUMN cqrs_es.snapshots.last_event_at IS
    'the greatest created_at of the events in the state: at a time before that it is not used';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.snapshots', '');

ALTER TABLE cqrs_es.snapshots ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.snapshots
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.snapshots IS
    'an ordinary role sees and writes rows of the current tenant';

CREATE FUNCTION cqrs_es.snapshot_updated() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_snapshot_updated';
COMMENT ON FUNCTION cqrs_es.snapshot_updated() IS
    'internal: trigger function: a snapshot that a client wrote over one of ours loses its fingerprint, so that replay does not use it';
REVOKE EXECUTE ON FUNCTION cqrs_es.snapshot_updated() FROM PUBLIC;

CREATE TRIGGER snapshot_updated BEFORE UPDATE OF current_snapshot ON cqrs_es.snapshots
    FOR EACH ROW WHEN (NEW.fingerprint OPERATOR(pg_catalog.=) OLD.fingerprint)
    EXECUTE FUNCTION cqrs_es.snapshot_updated();

CREATE FUNCTION cqrs_es.snapshots_deleted() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_snapshots_deleted';
COMMENT ON FUNCTION cqrs_es.snapshots_deleted() IS
    'internal: trigger function: where snapshots are deleted, sessions forget the states that they keep as well';
REVOKE EXECUTE ON FUNCTION cqrs_es.snapshots_deleted() FROM PUBLIC;

CREATE TRIGGER snapshots_deleted BEFORE DELETE OR TRUNCATE ON cqrs_es.snapshots
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.snapshots_deleted();
-- whoever changes events below the triggers deletes their snapshots there, too
ALTER TABLE cqrs_es.snapshots ENABLE ALWAYS TRIGGER snapshots_deleted;

CREATE FUNCTION cqrs_es.take_snapshot(aggregate_type text, aggregate_id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_take_snapshot';
COMMENT ON FUNCTION cqrs_es.take_snapshot(text, text) IS
    'saves the current state and returns its version, 0 when there are no events';
