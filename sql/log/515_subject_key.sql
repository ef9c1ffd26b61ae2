-- 515_subject_key: the keys of those whom personal data are about, and who has been forgotten

CREATE TABLE cqrs_es.personal_data_keys (
    key_id         uuid NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    subject        text COLLATE "C" NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id   text COLLATE "C" NOT NULL,
    master_key_id  bytea NOT NULL,
    wrapped_key    bytea,
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- found by its id; the others as in every table of streams
    PRIMARY KEY (key_id, aggregate_id, tenant_id)
);
COMMENT ON TABLE cqrs_es.personal_data_keys IS
    'the keys under which personal data are encrypted, each of one subject in one stream, wrapped by the master key; kept by appends';
COMMENT ON COLUMN cqrs_es.personal_data_keys.master_key_id IS 'says which master key wraps it, and nothing of that';
COMMENT ON COLUMN cqrs_es.personal_data_keys.wrapped_key IS 'null: the subject was forgotten';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.personal_data_keys', '');

CREATE INDEX personal_data_keys_subject ON cqrs_es.personal_data_keys (subject, tenant_id, aggregate_type, aggregate_id);

ALTER TABLE cqrs_es.personal_data_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.personal_data_keys
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.personal_data_keys IS
    'an ordinary role sees and writes rows of the current tenant';

-- a new key makes none of those old that sessions remember
CREATE TRIGGER registry_changed AFTER UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.personal_data_keys FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.personal_data_keys ENABLE ALWAYS TRIGGER registry_changed;

CREATE TABLE cqrs_es.forgotten_subjects (
    tenant_id    text COLLATE "C" NOT NULL,
    subject      text COLLATE "C" NOT NULL,
    reason       text NOT NULL,
    forgotten_by text NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (subject, tenant_id)
);
COMMENT ON TABLE cqrs_es.forgotten_subjects IS
    'whom forget_subject has made be forgotten: keys of theirs that come back with a backup are not used';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.forgotten_subjects', '');

ALTER TABLE cqrs_es.forgotten_subjects ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.forgotten_subjects
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.forgotten_subjects IS
    'an ordinary role sees and writes rows of the current tenant';

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.forgotten_subjects FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.forgotten_subjects ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.rotate_master_key() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_rotate_master_key';
COMMENT ON FUNCTION cqrs_es.rotate_master_key() IS
    'wraps the keys of personal data by the first master key of the file, where an older one does; returns how many';
REVOKE EXECUTE ON FUNCTION cqrs_es.rotate_master_key() FROM PUBLIC;
