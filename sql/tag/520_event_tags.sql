-- 520_event_tags: the tags of events.  Rows are written by the extension, where the event's
-- row is (src/tag/event_tags.c); nothing is written for an event without tags.

CREATE TABLE cqrs_es.event_tags (
    global_position bigint NOT NULL,
    tenant_id       text COLLATE "C" NOT NULL,
    tag             text COLLATE "C" NOT NULL,
    event_type      text COLLATE "C" NOT NULL
) WITH (
    -- as those of the log
    autovacuum_freeze_min_age = 0,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
-- not unique, as positions are not: a log that was brought together may have one twice
CREATE INDEX event_tags_tag_idx ON cqrs_es.event_tags (tag, tenant_id, global_position);
CREATE INDEX event_tags_global_position_idx ON cqrs_es.event_tags (global_position);
-- no key, so a subscriber is told all of a row that a redaction removes
ALTER TABLE cqrs_es.event_tags REPLICA IDENTITY FULL;
COMMENT ON TABLE cqrs_es.event_tags IS
    'the tags of events, each in a row: those that define_tags gives them, and those they were appended with; never UPDATE, DELETE or TRUNCATE';
COMMENT ON COLUMN cqrs_es.event_tags.global_position IS 'of the event';
COMMENT ON COLUMN cqrs_es.event_tags.event_type IS 'of the event';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.event_tags', '');

ALTER TABLE cqrs_es.event_tags ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.event_tags
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.event_tags IS
    'an ordinary role sees rows of the current tenant';

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.event_tags
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change('tags');
