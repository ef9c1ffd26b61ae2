-- 730_skipped_event: events that a projection could not handle, and that were stepped over

CREATE TABLE cqrs_es.skipped_events (
    projection      text COLLATE "C" NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    tenant_id       text COLLATE "C" NOT NULL,
    sequence        bigint NOT NULL,
    global_position bigint NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    sqlstate        text NOT NULL,
    message         text NOT NULL,
    detail          text,
    activity        text NOT NULL CHECK (activity IN ('rebuild', 'resume')),
    skipped_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (projection, aggregate_type, aggregate_id, tenant_id, sequence)
);
COMMENT ON TABLE cqrs_es.skipped_events IS
    'events that rebuild_projection() or resume_projection() could not handle and skipped, with the error; retry_skipped() handles them later';
COMMENT ON COLUMN cqrs_es.skipped_events.sequence IS
    'in a projection that keeps states: of the first event that was skipped, for the whole stream';
COMMENT ON COLUMN cqrs_es.skipped_events.activity IS 'what skipped it: rebuild or resume';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.skipped_events', '');

ALTER TABLE cqrs_es.skipped_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.skipped_events
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.skipped_events IS
    'an ordinary role sees and writes rows of the current tenant';
