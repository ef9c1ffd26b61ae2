-- 516_personal_data: members of payloads that are stored encrypted

CREATE TABLE cqrs_es.personal_data (
    event_type   text COLLATE "C" PRIMARY KEY,
    subject      text COLLATE "C" NOT NULL,
    members      text[] COLLATE "C" NOT NULL,
    past_members text[] COLLATE "C" NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE cqrs_es.personal_data IS
    'which members of payloads are stored encrypted; kept by define_personal_data and drop_personal_data';
COMMENT ON COLUMN cqrs_es.personal_data.subject IS 'JSON pointer to whom an event of the type is about';
COMMENT ON COLUMN cqrs_es.personal_data.members IS 'JSON pointers to what is encrypted; none: the definition was dropped';
COMMENT ON COLUMN cqrs_es.personal_data.past_members IS 'what was encrypted once, and is still opened';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.personal_data', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.personal_data FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.personal_data ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.define_personal_data(event_type text, subject text, members text[]) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_personal_data';
COMMENT ON FUNCTION cqrs_es.define_personal_data(text, text, text[]) IS
    'from now on these members of the payloads of an event type are stored encrypted, under a key of whom the event is about; subject and members are JSON pointers like /customerId and /name';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_personal_data(text, text, text[]) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_personal_data(event_type text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_personal_data';
COMMENT ON FUNCTION cqrs_es.drop_personal_data(text, boolean) IS
    'new events of the type are stored in clear again; those that are encrypted are still opened; if_exists: a notice when nothing is defined';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_personal_data(text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.reveal_personal_data(event cqrs_es.event) RETURNS cqrs_es.event
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_reveal_personal_data';
COMMENT ON FUNCTION cqrs_es.reveal_personal_data(cqrs_es.event) IS
    'an event as it is stored, with its personal data in clear; who may execute it sees them wherever events and states are handed out';
REVOKE EXECUTE ON FUNCTION cqrs_es.reveal_personal_data(cqrs_es.event) FROM PUBLIC;
