-- 530_tag_definition: which tags events get from their payload, by their type

CREATE TABLE cqrs_es.tag_definitions (
    event_type  text COLLATE "C" NOT NULL PRIMARY KEY,
    templates   text[] COLLATE "C" NOT NULL,
    is_complete boolean NOT NULL,
    history_to  bigint NOT NULL,
    retagged_to bigint NOT NULL
);
COMMENT ON TABLE cqrs_es.tag_definitions IS 'tags of event types; kept by define_tags';
COMMENT ON COLUMN cqrs_es.tag_definitions.is_complete IS 'all events of the type have these tags, so one may ask for them; false: retag must give them to some';
COMMENT ON COLUMN cqrs_es.tag_definitions.history_to IS 'events behind this position have got their tags when they were appended';
COMMENT ON COLUMN cqrs_es.tag_definitions.retagged_to IS 'up to here retag has given them to those before';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.tag_definitions', '');

-- not when retag comes along: that would be news for nobody
CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OF event_type, templates, is_complete OR DELETE OR TRUNCATE
    ON cqrs_es.tag_definitions FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.tag_definitions ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.define_tags(event_type text, VARIADIC templates text[] DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_tags';
COMMENT ON FUNCTION cqrs_es.define_tags(text, text[]) IS
    'says which tags events of a type get: texts with JSON pointers into the payload in them, as in course:{/courseId}; waits for open transactions that have appended';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_tags(text, text[]) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_tags(event_type text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_tags';
COMMENT ON FUNCTION cqrs_es.drop_tags(text, boolean) IS
    'events of a type get no more tags by themselves; those that have some keep them; waits for open transactions that have appended; if_exists: a notice when nothing was defined';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_tags(text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.derived_tags(payload jsonb, VARIADIC templates text[] DEFAULT '{}') RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT
    AS 'MODULE_PATHNAME', 'cqrs_es_derived_tags';
COMMENT ON FUNCTION cqrs_es.derived_tags(jsonb, text[]) IS
    'the tags that define_tags with these templates would give an event with this payload; NULL when it would be refused, as it has no value for one';
