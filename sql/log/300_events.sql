-- 300_events: the log.  Its triggers: 320_admission, 330_dispatch
-- Fixed-width columns stand first: replay reads sequence and position of every
-- row, and their place is then known without looking at the texts.

CREATE TABLE cqrs_es.events (
    global_position bigint NOT NULL DEFAULT cqrs_es.next_position(),
    sequence        bigint NOT NULL,
    created_at      timestamptz NOT NULL,
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
COMMENT ON COLUMN cqrs_es.events.created_at IS 'when the event was appended, by the clock, never before the one in front of it; filled in when left out';
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
