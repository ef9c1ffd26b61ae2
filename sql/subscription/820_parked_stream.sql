-- 820_parked_stream: streams that wait behind an event that failed

CREATE TABLE cqrs_es.parked_streams (
    subscription    text COLLATE "C" NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    tenant_id       text COLLATE "C" NOT NULL,
    slot            smallint NOT NULL CHECK (slot BETWEEN 0 AND 255),
    sequence        bigint NOT NULL,
    global_position bigint NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    retry_at        timestamptz,
    error           text,
    first_failed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    failed_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    batch           uuid,
    handed_to       bigint,
    suspect_to      bigint,
    deliveries      integer NOT NULL DEFAULT 0,
    lost_by         text COLLATE "C",
    PRIMARY KEY (subscription, aggregate_type, aggregate_id, tenant_id)
) WITH (fillfactor = 50, vacuum_truncate = off);
CREATE INDEX parked_streams_due ON cqrs_es.parked_streams (subscription, retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX parked_streams_in_hand ON cqrs_es.parked_streams (batch) WHERE batch IS NOT NULL;
COMMENT ON TABLE cqrs_es.parked_streams IS
    'streams of which a subscription hands out nothing by its position, since an event of theirs failed';
COMMENT ON COLUMN cqrs_es.parked_streams.slot IS 'of the stream; says to which share it belongs';
COMMENT ON COLUMN cqrs_es.parked_streams.sequence IS 'the first event that is not done';
COMMENT ON COLUMN cqrs_es.parked_streams.attempts IS 'how often that has failed';
COMMENT ON COLUMN cqrs_es.parked_streams.retry_at IS 'when it is handed out again; NULL: blocked, a dead letter says why';
COMMENT ON COLUMN cqrs_es.parked_streams.batch IS 'in which it is in hand, up to handed_to';
COMMENT ON COLUMN cqrs_es.parked_streams.deliveries IS 'consumers that were lost with that event alone';
COMMENT ON COLUMN cqrs_es.parked_streams.suspect_to IS
    'up to this sequence it was in hand when a consumer was lost; so it comes one event at a time';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.parked_streams', '');

ALTER TABLE cqrs_es.parked_streams ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.parked_streams
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.parked_streams IS
    'an ordinary role sees and writes rows of the current tenant';

-- Counts only when the batch is acknowledged.
CREATE TABLE cqrs_es.nacked_events (
    share           bigint NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    tenant_id       text COLLATE "C" NOT NULL,
    sequence        bigint NOT NULL,
    global_position bigint NOT NULL,
    batch           uuid NOT NULL,
    attempts        integer NOT NULL,
    retry_after     interval,
    give_up         boolean NOT NULL DEFAULT false,
    error           text,
    PRIMARY KEY (share, aggregate_type, aggregate_id, tenant_id, sequence)
) WITH (vacuum_truncate = off);
COMMENT ON TABLE cqrs_es.nacked_events IS
    'events that failed in a batch in hand, the first of each stream; they count when it is acknowledged';
COMMENT ON COLUMN cqrs_es.nacked_events.attempts IS 'how often it has failed, with this one';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.nacked_events', '');

ALTER TABLE cqrs_es.nacked_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.nacked_events
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.nacked_events IS
    'an ordinary role sees and writes rows of the current tenant';
