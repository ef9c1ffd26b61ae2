-- 960_log_link: whose log is it, where it is in several databases?  See src/scale/log_link.c

CREATE TABLE cqrs_es.published_logs (
    node_id        integer PRIMARY KEY,
    publisher      text NOT NULL,
    published_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    handed_over_at timestamptz,
    last_position  bigint,
    CHECK ((handed_over_at IS NULL) = (last_position IS NULL))
);
COMMENT ON TABLE cqrs_es.published_logs IS
    'logs that are published, this database''s and those it follows; kept by publish_log and hand_over_log';
COMMENT ON COLUMN cqrs_es.published_logs.publisher IS 'the server and database that publishes it';
COMMENT ON COLUMN cqrs_es.published_logs.handed_over_at IS 'since then its publisher appends nothing more';
COMMENT ON COLUMN cqrs_es.published_logs.last_position IS 'and this was the last one it had drawn';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.published_logs', '');

CREATE TABLE cqrs_es.followed_logs (
    node_id        integer PRIMARY KEY,
    subscription   text NOT NULL,
    publisher      text NOT NULL,
    follower       text NOT NULL,
    declarations   boolean NOT NULL,
    followed_since timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.followed_logs IS
    'logs that this database receives from others; kept by follow_log';
COMMENT ON COLUMN cqrs_es.followed_logs.subscription IS 'of PostgreSQL';
COMMENT ON COLUMN cqrs_es.followed_logs.follower IS 'the server and database that follows it: another one, restored from a dump, does not';
COMMENT ON COLUMN cqrs_es.followed_logs.declarations IS 'are aggregates, boundaries, reducers, upcasters, tags and personal data received as well?';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.followed_logs', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.published_logs FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.published_logs ENABLE ALWAYS TRIGGER registry_changed;
CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.followed_logs FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.followed_logs ENABLE ALWAYS TRIGGER registry_changed;

-- What is received is written by an apply worker, which fires triggers for rows alone, and
-- of these only such as fire on a replica.

CREATE FUNCTION cqrs_es.receive_event() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_receive_event';
COMMENT ON FUNCTION cqrs_es.receive_event() IS
    'internal: row trigger of what is received from a publisher: positions go on above it, and who waits is woken';
REVOKE EXECUTE ON FUNCTION cqrs_es.receive_event() FROM PUBLIC;

CREATE TRIGGER receive_event AFTER INSERT ON cqrs_es.events
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.receive_event();
ALTER TABLE cqrs_es.events ENABLE REPLICA TRIGGER receive_event;
CREATE TRIGGER receive_event AFTER INSERT OR UPDATE ON cqrs_es.published_positions
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.receive_event();
ALTER TABLE cqrs_es.published_positions ENABLE REPLICA TRIGGER receive_event;
CREATE TRIGGER receive_event AFTER INSERT OR UPDATE ON cqrs_es.published_logs
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.receive_event();
ALTER TABLE cqrs_es.published_logs ENABLE REPLICA TRIGGER receive_event;

CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.published_logs
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.published_logs ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.log_histories
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.log_histories ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.aggregates
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.aggregates ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.reducers
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.reducers ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.upcasters
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.upcasters ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.tag_definitions
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.tag_definitions ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.boundaries
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.boundaries ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.personal_data
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.personal_data ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER UPDATE OR DELETE ON cqrs_es.personal_data_keys
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.personal_data_keys ENABLE REPLICA TRIGGER registry_row_received;
CREATE TRIGGER registry_row_received AFTER INSERT OR UPDATE OR DELETE ON cqrs_es.forgotten_subjects
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.forgotten_subjects ENABLE REPLICA TRIGGER registry_row_received;

-- What would collide with what is received, or would never run, is refused.

CREATE FUNCTION cqrs_es.refuse_while_following() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_refuse_while_following';
COMMENT ON FUNCTION cqrs_es.refuse_while_following() IS
    'internal: trigger of what is received from a publisher, and of projections: refuses what would collide with it, or could not run';
REVOKE EXECUTE ON FUNCTION cqrs_es.refuse_while_following() FROM PUBLIC;

CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.log_histories
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('log');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.aggregates
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.reducers
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.upcasters
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.tag_definitions
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.boundaries
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.personal_data
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
-- keys of events that are appended here have ids of their own
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cqrs_es.forgotten_subjects
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_while_following('declarations');
CREATE TRIGGER refuse_while_following BEFORE INSERT OR UPDATE ON cqrs_es.projections
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.refuse_while_following('projections');
