-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION cqrs_es" to load this file. \quit

-- 00_core: the schema.  Created here and not by the control file, so that
-- nobody can have prepared it before.
CREATE SCHEMA cqrs_es;
COMMENT ON SCHEMA cqrs_es IS 'event log, aggregates and projections';
-- 10_tenancy: who is calling.
-- Tables of per-tenant data carry the policy tenant_isolation.  It is not forced
-- on their owner: pg_dump, restores and our own statements need all rows.  The
-- comparison is a plain one, so that it can be an index condition.

CREATE FUNCTION cqrs_es.current_tenant() RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_current_tenant';
COMMENT ON FUNCTION cqrs_es.current_tenant() IS
    'the tenant whose events are appended and read: the setting cqrs_es.tenant_id, empty when there is none';
-- 25_position: global positions.  CACHE 1 is a must: see src/position.c

CREATE SEQUENCE cqrs_es.events_global_position_seq
    AS bigint MINVALUE 1 MAXVALUE 17592186044415 NO CYCLE CACHE 1;
COMMENT ON SEQUENCE cqrs_es.events_global_position_seq IS
    'numbers of global positions (44 bits); only next_position draws from it';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.events_global_position_seq', '');

CREATE FUNCTION cqrs_es.next_position() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_next_position';
COMMENT ON FUNCTION cqrs_es.next_position() IS
    'draws a global position; the default of events.global_position, not meant to be called by hand';
-- 27_event_id: version-7 UUIDs

CREATE FUNCTION cqrs_es.new_event_id() RETURNS uuid
    LANGUAGE C VOLATILE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_new_event_id';
COMMENT ON FUNCTION cqrs_es.new_event_id() IS
    'a new version-7 UUID (RFC 9562), for clients that want to know an event''s id before they append it';
-- 30_events: the log.
-- Fixed-width columns stand first: replay reads sequence and position of every
-- row, and their place is then known without looking at the texts.

CREATE TABLE cqrs_es.events (
    global_position bigint NOT NULL DEFAULT cqrs_es.next_position(),
    sequence        bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    event_id        uuid NOT NULL DEFAULT cqrs_es.new_event_id(),
    tenant_id       text COLLATE "C" NOT NULL DEFAULT cqrs_es.current_tenant(),
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    event_version   text COLLATE "C" NOT NULL DEFAULT '1',
    payload         jsonb NOT NULL,
    metadata        jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)
) WITH (
    -- rows never change: freeze them at the first vacuum, and vacuum for inserts
    autovacuum_freeze_min_age = 0,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX events_global_position_idx ON cqrs_es.events (global_position);
COMMENT ON TABLE cqrs_es.events IS
    'the append-only event log: append_event(), INSERT or COPY; never UPDATE, DELETE or TRUNCATE';
COMMENT ON COLUMN cqrs_es.events.global_position IS 'place in the whole log; gaps are possible';
COMMENT ON COLUMN cqrs_es.events.sequence IS '1-based place in the stream, without gaps; filled in when left out';
COMMENT ON COLUMN cqrs_es.events.created_at IS 'when the event was appended, by the clock';
COMMENT ON COLUMN cqrs_es.events.event_version IS 'version of the payload''s schema';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.events', '');

ALTER TABLE cqrs_es.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.events
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.events IS
    'an ordinary role sees and writes rows of the current tenant';

CREATE TYPE cqrs_es.event AS (
    global_position bigint,
    sequence        bigint,
    created_at      timestamptz,
    event_id        uuid,
    tenant_id       text,
    aggregate_type  text,
    aggregate_id    text,
    event_type      text,
    event_version   text,
    payload         jsonb,
    metadata        jsonb
);
COMMENT ON TYPE cqrs_es.event IS
    'an event as functions return and take it; the table may be altered, this stays';
-- 32_admission: the guards of the log

CREATE FUNCTION cqrs_es.admit_event() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_admit_event';
COMMENT ON FUNCTION cqrs_es.admit_event() IS
    'row trigger of the log: holds INSERT and COPY to the rules of append_event';
REVOKE EXECUTE ON FUNCTION cqrs_es.admit_event() FROM PUBLIC;

CREATE FUNCTION cqrs_es.refuse_change() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_refuse_change';
COMMENT ON FUNCTION cqrs_es.refuse_change() IS
    'statement trigger of the log: refuses UPDATE, DELETE and TRUNCATE';
REVOKE EXECUTE ON FUNCTION cqrs_es.refuse_change() FROM PUBLIC;

CREATE TRIGGER admit_event BEFORE INSERT ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.events
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change();
-- 33_dispatch: what follows from a new row.  One AFTER ROW trigger does the
-- work; the same function at the end of the statement tells of the events that
-- were appended by those it had told.

CREATE FUNCTION cqrs_es.dispatch_event() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_dispatch_event';
COMMENT ON FUNCTION cqrs_es.dispatch_event() IS
    'trigger of the log: runs projections and takes snapshots';
REVOKE EXECUTE ON FUNCTION cqrs_es.dispatch_event() FROM PUBLIC;

CREATE TRIGGER dispatch_event AFTER INSERT ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.dispatch_event();
CREATE TRIGGER dispatch_event_queue AFTER INSERT ON cqrs_es.events
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.dispatch_event();
-- 35_append: the way in

-- A type with a name, since the executor would put one of OUT parameters together
-- anew at every call.
CREATE TYPE cqrs_es.append_result AS (
    version         bigint,
    global_position bigint
);
COMMENT ON TYPE cqrs_es.append_result IS
    'the stream''s new version, and the global position of the last event appended';

CREATE FUNCTION cqrs_es.append_event(
    aggregate_type   text,
    aggregate_id     text,
    event_type       text,
    payload          jsonb,
    expected_version bigint DEFAULT NULL,
    metadata         jsonb DEFAULT '{}',
    event_id         uuid DEFAULT NULL,
    event_version    text DEFAULT '1'
) RETURNS cqrs_es.append_result
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_append_event';
COMMENT ON FUNCTION cqrs_es.append_event(text, text, text, jsonb, bigint, jsonb, uuid, text) IS
    'appends one event; expected_version: NULL any, 0 no such stream, n just this version, -1 the stream exists; returns the stream''s new version and the event''s global position';

CREATE FUNCTION cqrs_es.append_events(
    aggregate_type   text,
    aggregate_id     text,
    events           jsonb,
    expected_version bigint DEFAULT NULL
) RETURNS cqrs_es.append_result
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_append_events';
COMMENT ON FUNCTION cqrs_es.append_events(text, text, jsonb, bigint) IS
    'appends a JSON array of {"type", "payload", "metadata", "id", "version"}, all or nothing; returns the stream''s new version and the last global position';

CREATE FUNCTION cqrs_es.append_event_arrays(
    aggregate_type   text,
    aggregate_id     text,
    event_types      text[],
    payloads         jsonb[],
    expected_version bigint DEFAULT NULL,
    metadata         jsonb[] DEFAULT NULL,
    event_ids        uuid[] DEFAULT NULL,
    event_versions   text[] DEFAULT NULL
) RETURNS cqrs_es.append_result
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_append_event_arrays';
COMMENT ON FUNCTION cqrs_es.append_event_arrays(text, text, text[], jsonb[], bigint, jsonb[], uuid[], text[]) IS
    'append_events for drivers that send arrays more easily than nested JSON; arrays have one element per event';
-- 36_registry: declared aggregates, and the trigger that every registry carries.
-- No foreign keys between registries: a parallel pg_restore fills the tables in
-- any order, and constraints of an extension's tables are there from the start.

CREATE FUNCTION cqrs_es.registry_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_registry_changed';
COMMENT ON FUNCTION cqrs_es.registry_changed() IS
    'statement trigger of the registries: tells all sessions that one of them changed';
REVOKE EXECUTE ON FUNCTION cqrs_es.registry_changed() FROM PUBLIC;

CREATE TABLE cqrs_es.aggregates (
    aggregate_type text COLLATE "C" PRIMARY KEY,
    initial_state  jsonb NOT NULL DEFAULT '{}',
    snapshot_every integer NOT NULL DEFAULT 100 CHECK (snapshot_every >= 0),
    keep_snapshots integer NOT NULL DEFAULT 1 CHECK (keep_snapshots > 0),
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.aggregates IS
    'declared aggregate types; kept by create_aggregate';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.aggregates', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.aggregates FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.aggregates ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.create_aggregate(
    aggregate_type text,
    initial_state  jsonb DEFAULT '{}',
    snapshot_every integer DEFAULT 100,
    keep_snapshots integer DEFAULT 1
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_aggregate';
COMMENT ON FUNCTION cqrs_es.create_aggregate(text, jsonb, integer, integer) IS
    'declares an aggregate type: the state before its first event, every how many events a snapshot is taken (0: never), and how many of a stream are kept';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_aggregate(text, jsonb, integer, integer) FROM PUBLIC;

CREATE FUNCTION cqrs_es.alter_aggregate(
    aggregate_type text,
    initial_state  jsonb DEFAULT NULL,
    snapshot_every integer DEFAULT NULL,
    keep_snapshots integer DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_alter_aggregate';
COMMENT ON FUNCTION cqrs_es.alter_aggregate(text, jsonb, integer, integer) IS
    'changes a declared aggregate type; NULL leaves a property as it is';
REVOKE EXECUTE ON FUNCTION cqrs_es.alter_aggregate(text, jsonb, integer, integer) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_aggregate(aggregate_type text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_aggregate';
COMMENT ON FUNCTION cqrs_es.drop_aggregate(text) IS
    'drops the declaration of an aggregate type, its reducers, commands and snapshots; its events stay';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_aggregate(text) FROM PUBLIC;
-- 37_registry_function: functions that registries name.  The event trigger's
-- function is here; the trigger itself comes when its tables are there (55).

CREATE FUNCTION cqrs_es.protect_functions() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_protect_functions';
COMMENT ON FUNCTION cqrs_es.protect_functions() IS
    'event trigger: refuses to drop a function that a reducer or an upcaster uses';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_functions() FROM PUBLIC;
-- 40_horizon: up to which global position is the log settled?

CREATE FUNCTION cqrs_es.settled_position() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_settled_position';
COMMENT ON FUNCTION cqrs_es.settled_position() IS
    'the position of the last event that read_all would hand out; nothing will ever appear at or below it';

CREATE FUNCTION cqrs_es.wait_for_position("position" bigint, timeout interval DEFAULT '10 seconds') RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT
    AS 'MODULE_PATHNAME', 'cqrs_es_wait_for_position';
COMMENT ON FUNCTION cqrs_es.wait_for_position(bigint, interval) IS
    'waits until everything up to a position is settled here; false when time ran out';
-- 45_upcast: old payload version -> current one, on every way out

CREATE TABLE cqrs_es.upcasters (
    event_type   text COLLATE "C" NOT NULL,
    from_version text COLLATE "C" NOT NULL,
    to_version   text COLLATE "C" NOT NULL,
    -- the full signature: survives dump and restore, which an oid would not
    function     text COLLATE "C" NOT NULL,
    search_path  text NOT NULL,
    PRIMARY KEY (event_type, from_version)
);
COMMENT ON TABLE cqrs_es.upcasters IS 'upcasters; kept by define_upcaster';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.upcasters', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.upcasters FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.upcasters ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.define_upcaster(event_type text, from_version text, to_version text, function regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_upcaster';
COMMENT ON FUNCTION cqrs_es.define_upcaster(text, text, text, regprocedure) IS
    'says how the payload of an event type is lifted to another version when it is read: a function (payload jsonb) returning jsonb';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_upcaster(text, text, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_upcaster(event_type text, from_version text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_upcaster';
COMMENT ON FUNCTION cqrs_es.drop_upcaster(text, text) IS
    'removes the upcaster of an event type from a version';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_upcaster(text, text) FROM PUBLIC;
-- 50_read: reading the log

CREATE FUNCTION cqrs_es.read_stream(
    aggregate_type text,
    aggregate_id   text,
    from_sequence  bigint DEFAULT NULL,
    max_count      bigint DEFAULT NULL,
    backward       boolean DEFAULT false
) RETURNS SETOF cqrs_es.event
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_read_stream';
COMMENT ON FUNCTION cqrs_es.read_stream(text, text, bigint, bigint, boolean) IS
    'the events of one stream by sequence; from_sequence NULL is the stream''s beginning, or its end when reading backward';

CREATE FUNCTION cqrs_es.read_all(
    after_position  bigint DEFAULT 0,
    max_count       bigint DEFAULT 1000,
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL
) RETURNS SETOF cqrs_es.event
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_read_all';
COMMENT ON FUNCTION cqrs_es.read_all(bigint, bigint, text[], text[]) IS
    'settled events of the whole log by global position: a reader that goes on after the last one it saw misses nothing';

CREATE FUNCTION cqrs_es.stream_version(aggregate_type text, aggregate_id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_stream_version';
COMMENT ON FUNCTION cqrs_es.stream_version(text, text) IS
    'the sequence of the stream''s last event, 0 when it has none';
-- 55_reducer: state + event -> state

CREATE TABLE cqrs_es.reducers (
    aggregate_type text COLLATE "C" NOT NULL,
    event_type     text COLLATE "C" NOT NULL,
    -- the full signature: survives dump and restore, which an oid would not
    function       text COLLATE "C",
    search_path    text NOT NULL,
    operations     jsonb,
    PRIMARY KEY (aggregate_type, event_type),
    CHECK ((function IS NULL) <> (operations IS NULL))
);
COMMENT ON TABLE cqrs_es.reducers IS 'reducers of declared aggregates; kept by define_reducer';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.reducers', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.reducers FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.reducers ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, function regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer_function';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, regprocedure) IS
    'says how an event type changes the state: a function (state jsonb, event cqrs_es.event) returning jsonb; without a reducer the payload is merged (RFC 7396)';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, operations jsonb) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer_operations';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, jsonb) IS
    'says how an event type changes the state: an array of operations {"op", "path", "value" or "from"}: add, replace, remove, set, increment, decrement, append, merge';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, jsonb) FROM PUBLIC;

-- a literal without a cast is a text to overload resolution
CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, reducer text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, text) IS
    'either of the two: text that begins with a bracket is operations, other text a function';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_reducer(aggregate_type text, event_type text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_reducer';
COMMENT ON FUNCTION cqrs_es.drop_reducer(text, text) IS
    'removes a reducer: the payload of the event type is merged again';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_reducer(text, text) FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_protect_functions ON sql_drop
    EXECUTE FUNCTION cqrs_es.protect_functions();
COMMENT ON EVENT TRIGGER cqrs_es_protect_functions IS
    'refuses to drop a function that a reducer or an upcaster uses';
-- 60_snapshot: stored states.  Columns and types are such that the statements
-- of the Rust crate postgres-es work on it.

CREATE TABLE cqrs_es.snapshots (
    aggregate_type   text COLLATE "C" NOT NULL,
    aggregate_id     text COLLATE "C" NOT NULL,
    tenant_id        text COLLATE "C" NOT NULL DEFAULT cqrs_es.current_tenant(),
    last_sequence    bigint NOT NULL CHECK (last_sequence >= 0),
    current_snapshot bigint NOT NULL CHECK (current_snapshot >= 0),
    payload          jsonb NOT NULL,
    fingerprint      bytea,
    created_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, last_sequence)
);
COMMENT ON TABLE cqrs_es.snapshots IS
    'states of aggregates, so that replay need not start at the first event';
COMMENT ON COLUMN cqrs_es.snapshots.last_sequence IS 'the last event that is in the state';
COMMENT ON COLUMN cqrs_es.snapshots.current_snapshot IS 'a number that rises with every snapshot of the stream';
COMMENT ON COLUMN cqrs_es.snapshots.fingerprint IS
    'of the reducers that made it; a snapshot with another one is not used';
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
    'trigger function: a snapshot that a client wrote over one of ours loses its fingerprint, so that replay does not use it';
REVOKE EXECUTE ON FUNCTION cqrs_es.snapshot_updated() FROM PUBLIC;

CREATE TRIGGER snapshot_updated BEFORE UPDATE OF current_snapshot ON cqrs_es.snapshots
    FOR EACH ROW WHEN (NEW.fingerprint OPERATOR(pg_catalog.=) OLD.fingerprint)
    EXECUTE FUNCTION cqrs_es.snapshot_updated();
-- 65_fold: replay

CREATE FUNCTION cqrs_es.aggregate_state(
    aggregate_type text,
    aggregate_id   text,
    at_sequence    bigint DEFAULT NULL,
    at_time        timestamptz DEFAULT NULL
) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_aggregate_state';
COMMENT ON FUNCTION cqrs_es.aggregate_state(text, text, bigint, timestamptz) IS
    'the state of an aggregate, now or after an event or at a time, replayed from the newest snapshot before that; NULL when it had no events';

CREATE FUNCTION cqrs_es.load_aggregate(
    aggregate_type text,
    aggregate_id   text,
    at_sequence    bigint DEFAULT NULL,
    at_time        timestamptz DEFAULT NULL,
    OUT version bigint,
    OUT state   jsonb
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_load_aggregate';
COMMENT ON FUNCTION cqrs_es.load_aggregate(text, text, bigint, timestamptz) IS
    'version and state of an aggregate, for a decision that is appended with this expected_version; version 0 and the initial state when it had no events';

CREATE FUNCTION cqrs_es.replay(
    aggregate_type text,
    aggregate_id   text,
    from_sequence  bigint DEFAULT 1,
    max_count      bigint DEFAULT NULL,
    OUT sequence      bigint,
    OUT created_at    timestamptz,
    OUT event_type    text,
    OUT event_version text,
    OUT payload       jsonb,
    OUT metadata      jsonb,
    OUT state         jsonb
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_replay';
COMMENT ON FUNCTION cqrs_es.replay(text, text, bigint, bigint) IS
    'the debugger''s view: one row per event with the state after it';

CREATE FUNCTION cqrs_es.take_snapshot(aggregate_type text, aggregate_id text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_take_snapshot';
COMMENT ON FUNCTION cqrs_es.take_snapshot(text, text) IS
    'saves the current state and returns its version, 0 when there are no events';
-- 70_command: state + command -> events

CREATE TABLE cqrs_es.commands (
    aggregate_type text COLLATE "C" NOT NULL,
    command_type   text COLLATE "C" NOT NULL,
    decider        text NOT NULL,
    definer        regrole NOT NULL,
    search_path    text NOT NULL,
    PRIMARY KEY (aggregate_type, command_type)
);
COMMENT ON TABLE cqrs_es.commands IS 'commands of declared aggregates; kept by define_command';
COMMENT ON COLUMN cqrs_es.commands.decider IS 'an SQL expression over state, command, aggregate_id, metadata and version';
COMMENT ON COLUMN cqrs_es.commands.definer IS 'the decider runs with the rights of this role';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.commands', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.commands FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.commands ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.define_command(aggregate_type text, command_type text, decider text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_command';
COMMENT ON FUNCTION cqrs_es.define_command(text, text, text) IS
    'says how a command is decided: an SQL expression over state, command, aggregate_id, metadata and version that gives one event or an array of them; reject() refuses';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_command(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.define_command(aggregate_type text, command_type text, decider regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_command_function';
COMMENT ON FUNCTION cqrs_es.define_command(text, text, regprocedure) IS
    'the same with a function (state jsonb, command jsonb) returning jsonb';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_command(text, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_command(aggregate_type text, command_type text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_command';
COMMENT ON FUNCTION cqrs_es.drop_command(text, text) IS 'removes a command';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_command(text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.reject(message text, code text DEFAULT NULL) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_reject';
COMMENT ON FUNCTION cqrs_es.reject(text, text) IS
    'refuses the command that is being decided: raises QE301 with the message, and the code as the constraint name of the error';

CREATE FUNCTION cqrs_es.execute_command(
    aggregate_type   text,
    aggregate_id     text,
    command_type     text,
    payload          jsonb DEFAULT '{}',
    expected_version bigint DEFAULT NULL,
    metadata         jsonb DEFAULT '{}',
    command_id       uuid DEFAULT NULL,
    OUT version         bigint,
    OUT global_position bigint,
    OUT state           jsonb
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_execute_command';
COMMENT ON FUNCTION cqrs_es.execute_command(text, text, text, jsonb, bigint, jsonb, uuid) IS
    'loads the aggregate, decides the command and appends its events in one call; a lost race is decided again; returns version, position of the last event (NULL when nothing happened) and state';
-- 75_projection: read models kept current in the appending transaction

CREATE TABLE cqrs_es.projections (
    name            text COLLATE "C" PRIMARY KEY,
    aggregate_types text[] COLLATE "C",
    read_models     regclass[],
    owner           regrole NOT NULL,
    state_of        text COLLATE "C",
    paused          boolean NOT NULL DEFAULT false,
    handled_position bigint,
    handled_gaps    int8multirange,
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK (paused = (handled_position IS NOT NULL))
);
COMMENT ON TABLE cqrs_es.projections IS 'projections; kept by create_projection';
COMMENT ON COLUMN cqrs_es.projections.aggregate_types IS 'NULL: all';
COMMENT ON COLUMN cqrs_es.projections.state_of IS
    'keeps the states of this aggregate type in its read model, instead of having handlers';
COMMENT ON COLUMN cqrs_es.projections.handled_position IS
    'the last event that a paused projection has handled';
COMMENT ON COLUMN cqrs_es.projections.handled_gaps IS
    'positions up to it that were not visible then, and may have been missed';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.projections', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.projections FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.projections ENABLE ALWAYS TRIGGER registry_changed;

CREATE TABLE cqrs_es.handlers (
    projection  text COLLATE "C" NOT NULL,
    event_type  text COLLATE "C" NOT NULL,
    statement   text,
    -- the full signature: survives dump and restore, which an oid would not
    function    text COLLATE "C",
    definer     regrole NOT NULL,
    search_path text NOT NULL,
    PRIMARY KEY (projection, event_type),
    CHECK ((statement IS NULL) <> (function IS NULL))
);
COMMENT ON TABLE cqrs_es.handlers IS 'what a projection does for an event type; kept by define_handler';
COMMENT ON COLUMN cqrs_es.handlers.event_type IS '*: all';
COMMENT ON COLUMN cqrs_es.handlers.definer IS 'statement or function runs with the rights of this role';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.handlers', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.handlers FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.handlers ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.create_projection(
    name            text,
    aggregate_types text[] DEFAULT NULL,
    read_models     regclass[] DEFAULT NULL,
    state_of        text DEFAULT NULL,
    backfill        boolean DEFAULT false
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_projection';
COMMENT ON FUNCTION cqrs_es.create_projection(text, text[], regclass[], text, boolean) IS
    'creates a projection: for which aggregate types (NULL: all), and which tables it keeps; state_of: one that keeps the states of an aggregate type in a table (view_id, version, payload); backfill: paused, until resume_projection() has filled it from the log';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_projection(text, text[], regclass[], text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.define_handler(projection text, event_type text, handler text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_handler';
COMMENT ON FUNCTION cqrs_es.define_handler(text, text, text) IS
    'says what a projection does for an event type (*: all): one INSERT, UPDATE, DELETE or MERGE over event.payload, event.aggregate_id, ..., or the signature of a function (event cqrs_es.event); run in the appending transaction with the rights and search_path of the definer';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_handler(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_handler(projection text, event_type text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_handler';
COMMENT ON FUNCTION cqrs_es.drop_handler(text, text) IS
    'removes a handler: the projection does nothing for the event type any more';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_handler(text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_projection(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_projection';
COMMENT ON FUNCTION cqrs_es.drop_projection(text) IS
    'drops a projection with its handlers; its read models stay';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_projection(text) FROM PUBLIC;
-- 77_projection_rebuild: rebuild, pause, resume and inspect projections

CREATE FUNCTION cqrs_es.rebuild_projection(name text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_rebuild_projection';
COMMENT ON FUNCTION cqrs_es.rebuild_projection(text) IS
    'empties the read models of a projection and replays the log into them; returns how many events concerned it. Waits for open transactions that have appended; then writers of events that concern it wait for the end, unless the projection is paused';
REVOKE EXECUTE ON FUNCTION cqrs_es.rebuild_projection(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.pause_projection(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_pause_projection';
COMMENT ON FUNCTION cqrs_es.pause_projection(text) IS
    'appends pass the projection by, until resume_projection(); waits for open transactions that have appended what concerns it';
REVOKE EXECUTE ON FUNCTION cqrs_es.pause_projection(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.resume_projection(name text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_resume_projection';
COMMENT ON FUNCTION cqrs_es.resume_projection(text) IS
    'replays the events that a paused projection has missed, and lets it follow appends again; returns how many events those were. Waits for open transactions that have appended';
REVOKE EXECUTE ON FUNCTION cqrs_es.resume_projection(text) FROM PUBLIC;

-- STABLE, so that projection_status asks it only where its errors are asked for.
CREATE FUNCTION cqrs_es.projection_errors(name text) RETURNS text[]
    LANGUAGE C STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_projection_errors';
COMMENT ON FUNCTION cqrs_es.projection_errors(text) IS
    'what would make the handlers of a projection fail now, whatever the event; NULL: nothing, or nothing is known while their tables are locked';
REVOKE EXECUTE ON FUNCTION cqrs_es.projection_errors(text) FROM PUBLIC;

-- The server shows the details of a session's progress to those who may see its
-- statements. A replay reports like a COPY into cqrs_es.projections, with
-- the projection in the places from 17 on.
CREATE VIEW cqrs_es.projection_progress AS
    SELECT p.name AS projection,
           CASE s.param20 WHEN 1 THEN 'rebuild' ELSE 'resume' END AS activity,
           s.pid,
           s.param3 AS events,
           s.param18 AS position,
           s.param19 AS last_position
    FROM pg_catalog.pg_stat_get_progress_info('COPY') AS s
    JOIN cqrs_es.projections AS p
        ON pg_catalog.hashtextextended(p.name, 0) OPERATOR(pg_catalog.=) s.param17
    WHERE s.relid OPERATOR(pg_catalog.=) 'cqrs_es.projections'::pg_catalog.regclass::pg_catalog.oid
      AND s.datid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
COMMENT ON VIEW cqrs_es.projection_progress IS
    'projections that are being rebuilt or resumed now: events replayed so far, where in the log, and how far it goes';

CREATE VIEW cqrs_es.projection_status AS
    SELECT p.name,
           CASE (SELECT r.activity FROM cqrs_es.projection_progress AS r
                 WHERE r.projection OPERATOR(pg_catalog.=) p.name LIMIT 1)
               WHEN 'rebuild' THEN 'rebuilding'
               WHEN 'resume' THEN 'catching up'
               ELSE CASE WHEN p.paused THEN 'paused' ELSE 'live' END
           END AS state,
           p.aggregate_types,
           p.state_of,
           p.read_models,
           p.owner,
           ARRAY(SELECT h.event_type FROM cqrs_es.handlers AS h
                 WHERE h.projection OPERATOR(pg_catalog.=) p.name ORDER BY h.event_type) AS handlers,
           CASE WHEN p.paused THEN p.handled_position
                ELSE (SELECT e.global_position FROM cqrs_es.events AS e
                      ORDER BY e.global_position DESC LIMIT 1)
           END AS last_position,
           cqrs_es.projection_errors(p.name) AS errors
    FROM cqrs_es.projections AS p;
COMMENT ON VIEW cqrs_es.projection_status IS
    'every projection: is it live, whose events it handles, up to where, and what is wrong with it';
COMMENT ON COLUMN cqrs_es.projection_status.last_position IS
    'up to which position it has handled events; a live one has handled all there are';
COMMENT ON COLUMN cqrs_es.projection_status.errors IS
    'what makes every append fail that it handles; see projection_errors()';
