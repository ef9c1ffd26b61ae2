-- 720_boundary: decisions on the events of any streams

CREATE TABLE cqrs_es.boundaries (
    boundary       text COLLATE "C" PRIMARY KEY,
    query          jsonb NOT NULL,
    initial_state  jsonb NOT NULL DEFAULT '{}',
    snapshot_every integer NOT NULL DEFAULT 100 CHECK (snapshot_every >= 0),
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.boundaries IS
    'declared boundaries; kept by create_boundary. Their reducers and commands stand in reducers and commands, in the column aggregate_type';
COMMENT ON COLUMN cqrs_es.boundaries.query IS 'which events a decision is made on; its tags are templates over the payload of the command';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.boundaries', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.boundaries FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.boundaries ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.create_boundary(
    boundary       text,
    query          jsonb,
    initial_state  jsonb DEFAULT '{}',
    snapshot_every integer DEFAULT 100
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_boundary';
COMMENT ON FUNCTION cqrs_es.create_boundary(text, jsonb, jsonb, integer) IS
    'declares a boundary: the query for the events that a decision is made on, with {pointers} into the command in its tags, the state before the first of them, and after how many new ones a snapshot is taken (0: never); one that is declared already is left when it is the same, and changed when not';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_boundary(text, jsonb, jsonb, integer) FROM PUBLIC;

CREATE FUNCTION cqrs_es.alter_boundary(
    boundary       text,
    query          jsonb DEFAULT NULL,
    initial_state  jsonb DEFAULT NULL,
    snapshot_every integer DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_alter_boundary';
COMMENT ON FUNCTION cqrs_es.alter_boundary(text, jsonb, jsonb, integer) IS
    'changes a declared boundary; NULL leaves a property as it is';
REVOKE EXECUTE ON FUNCTION cqrs_es.alter_boundary(text, jsonb, jsonb, integer) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_boundary(boundary text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_boundary';
COMMENT ON FUNCTION cqrs_es.drop_boundary(text, boolean) IS
    'drops the declaration of a boundary, its reducers, commands and snapshots; events stay; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_boundary(text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.boundary_query(boundary text, keys jsonb) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_boundary_query';
COMMENT ON FUNCTION cqrs_es.boundary_query(text, jsonb) IS
    'the query of a boundary for these keys, for read_matching and fail_if_events_match';

CREATE TABLE cqrs_es.boundary_snapshots (
    boundary      text COLLATE "C" NOT NULL,
    query_digest  bytea NOT NULL,
    tenant_id     text COLLATE "C" NOT NULL DEFAULT cqrs_es.current_tenant(),
    query         jsonb NOT NULL,
    last_position bigint NOT NULL,
    payload       jsonb NOT NULL,
    fingerprint   bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (boundary, query_digest, tenant_id)
);
COMMENT ON TABLE cqrs_es.boundary_snapshots IS
    'states of boundaries, so that a decision need not read all its events again; those that are not needed may be deleted at any time';
COMMENT ON COLUMN cqrs_es.boundary_snapshots.query_digest IS 'the SHA-256 of the query';
COMMENT ON COLUMN cqrs_es.boundary_snapshots.query IS 'which events are in the state: the query of the boundary with its keys filled in';
COMMENT ON COLUMN cqrs_es.boundary_snapshots.last_position IS 'all of them up to here';
COMMENT ON COLUMN cqrs_es.boundary_snapshots.fingerprint IS
    'of the reducers and the definitions of tags that made it; a snapshot with another one is not used';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.boundary_snapshots', '');

ALTER TABLE cqrs_es.boundary_snapshots ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.boundary_snapshots
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.boundary_snapshots IS
    'an ordinary role sees and writes rows of the current tenant';

CREATE FUNCTION cqrs_es.boundary_state(
    boundary    text,
    keys        jsonb,
    at_position bigint DEFAULT NULL
) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_boundary_state';
COMMENT ON FUNCTION cqrs_es.boundary_state(text, jsonb, bigint) IS
    'the state of a boundary for these keys, now or up to a position; the initial state when no events match';

CREATE FUNCTION cqrs_es.execute_boundary(
    boundary     text,
    command_type text,
    payload      jsonb DEFAULT '{}',
    metadata     jsonb DEFAULT '{}',
    command_id   uuid DEFAULT NULL,
    OUT global_position bigint,
    OUT state           jsonb
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_execute_boundary';
COMMENT ON FUNCTION cqrs_es.execute_boundary(text, text, jsonb, jsonb, uuid) IS
    'locks what the query of the boundary asks for, reads, decides the command and appends its events in one call, so that no race can be lost; returns the position of the last event (NULL when nothing happened) and the state';
