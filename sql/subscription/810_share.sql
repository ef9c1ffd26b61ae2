-- 810_share: how far a subscription has come, and what is handed out

CREATE SEQUENCE cqrs_es.share_numbers AS bigint MAXVALUE 281474976710655;
COMMENT ON SEQUENCE cqrs_es.share_numbers IS 'numbers of shares; 48 bits of the tokens of batches';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.share_numbers', '');

-- Rows are changed with each batch and never in an indexed column, so room on the page
-- keeps the changes there. Vacuum must not shorten the table, nor the others that grow
-- and empty: it would shut out consumers meanwhile, and those who look on standbys.
CREATE TABLE cqrs_es.shares (
    share           bigint PRIMARY KEY DEFAULT pg_catalog.nextval('cqrs_es.share_numbers'::pg_catalog.regclass),
    subscription    text COLLATE "C" NOT NULL,
    slots           bit(256) NOT NULL,
    position        bigint NOT NULL,
    position_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    batch           uuid,
    batch_kind      text,
    batch_end       bigint,
    batch_count     integer,
    consumer        text COLLATE "C",
    handed_out_at   timestamptz,
    leased_until    timestamptz,
    has_notes       boolean NOT NULL DEFAULT false,
    last_kind       text,
    alone_position  bigint,
    deliveries      integer NOT NULL DEFAULT 0,
    lost_by         text COLLATE "C",
    suspect_end     bigint,
    batch_limit     integer,
    failures_in_row integer NOT NULL DEFAULT 0,
    circuit         integer NOT NULL DEFAULT 0,
    retry_at        timestamptz,
    failed_position bigint,
    attempts        integer NOT NULL DEFAULT 0,
    error           text
) WITH (fillfactor = 20, vacuum_truncate = off);
CREATE INDEX shares_subscription ON cqrs_es.shares (subscription);
COMMENT ON TABLE cqrs_es.shares IS
    'parts of subscriptions, each a set of streams with one position and at most one batch in hand';
COMMENT ON COLUMN cqrs_es.shares.slots IS 'which of the 256 slots, to which streams are hashed';
COMMENT ON COLUMN cqrs_es.shares.position IS
    'of these streams every event up to here is done, parked or a dead letter';
COMMENT ON COLUMN cqrs_es.shares.batch IS 'the token of what is in hand; NULL: the share is free';
COMMENT ON COLUMN cqrs_es.shares.batch_end IS 'position when the batch in hand has been acknowledged';
COMMENT ON COLUMN cqrs_es.shares.consumer IS 'who has the batch in hand, or had the last one';
COMMENT ON COLUMN cqrs_es.shares.has_notes IS 'there are nacked events of this or an earlier batch';
COMMENT ON COLUMN cqrs_es.shares.alone_position IS 'of the event that was handed out alone';
COMMENT ON COLUMN cqrs_es.shares.deliveries IS 'consumers that were lost with just that event';
COMMENT ON COLUMN cqrs_es.shares.lost_by IS 'who was lost last';
COMMENT ON COLUMN cqrs_es.shares.suspect_end IS 'what is handed out up to here may be what consumers die of';
COMMENT ON COLUMN cqrs_es.shares.batch_limit IS 'so many events at most, to find it';
COMMENT ON COLUMN cqrs_es.shares.failures_in_row IS 'streams that failed, without an event done between';
COMMENT ON COLUMN cqrs_es.shares.circuit IS 'how often in a row it was left alone because everything failed';
COMMENT ON COLUMN cqrs_es.shares.retry_at IS 'nothing is handed out before';
COMMENT ON COLUMN cqrs_es.shares.failed_position IS 'in the order of the log: what failed, so often, and why';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.shares', '');

CREATE UNLOGGED TABLE cqrs_es.consumers (
    subscription text COLLATE "C" NOT NULL,
    consumer     text COLLATE "C" NOT NULL,
    seen_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (subscription, consumer)
) WITH (fillfactor = 50, vacuum_truncate = off);
COMMENT ON TABLE cqrs_es.consumers IS 'who asked for events, and when last';
