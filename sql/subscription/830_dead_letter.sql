-- 830_dead_letter: events that a subscription could not deliver, and what was decided about them

CREATE SEQUENCE cqrs_es.dead_letter_ids AS bigint;
COMMENT ON SEQUENCE cqrs_es.dead_letter_ids IS 'ids of dead letters';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.dead_letter_ids', '');

CREATE TABLE cqrs_es.dead_letters (
    id              bigint PRIMARY KEY DEFAULT pg_catalog.nextval('cqrs_es.dead_letter_ids'::pg_catalog.regclass),
    subscription    text COLLATE "C" NOT NULL,
    tenant_id       text COLLATE "C" NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    slot            smallint NOT NULL CHECK (slot BETWEEN 0 AND 255),
    sequence        bigint NOT NULL,
    global_position bigint NOT NULL,
    event_id        uuid NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    error           text,
    attempts        integer NOT NULL DEFAULT 0,
    failed_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    state           text NOT NULL CHECK (state IN ('blocked', 'skipped', 'redriven', 'delivered', 'discarded')),
    decided_by      text COLLATE "C",
    decided_at      timestamptz,
    reason          text,
    retry_at        timestamptz,
    batch           uuid,
    is_suspect      boolean NOT NULL DEFAULT false,
    deliveries      integer NOT NULL DEFAULT 0,
    lost_by         text COLLATE "C"
);
CREATE UNIQUE INDEX dead_letters_open ON cqrs_es.dead_letters
    (subscription, aggregate_type, aggregate_id, tenant_id, sequence) WHERE state IN ('blocked', 'skipped', 'redriven');
CREATE INDEX dead_letters_due ON cqrs_es.dead_letters (subscription, retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX dead_letters_in_hand ON cqrs_es.dead_letters (batch) WHERE batch IS NOT NULL;
COMMENT ON TABLE cqrs_es.dead_letters IS
    'events that a subscription gave up: blocked ones, behind which their stream waits, and skipped ones; redrive() and discard_dead_letter() decide about them';
COMMENT ON COLUMN cqrs_es.dead_letters.state IS
    'blocked: its stream waits; skipped: its stream has gone on; redriven: it is to be tried again; delivered: that was acknowledged; discarded: given up';
COMMENT ON COLUMN cqrs_es.dead_letters.retry_at IS 'a skipped event that is redriven is handed out from then on, out of order';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.dead_letters', '');

ALTER TABLE cqrs_es.dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.dead_letters
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.dead_letters IS
    'an ordinary role sees and writes rows of the current tenant';
