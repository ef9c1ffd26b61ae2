-- 936_event_change: the changes of sealed events that were made by rule: their digests, before and
-- after, and nothing of what was in them.  See src/seal/event_change.c

CREATE TABLE cqrs_es.event_changes (
    global_position bigint NOT NULL,
    event_id        uuid NOT NULL,
    number          integer NOT NULL,
    after_seal      bigint NOT NULL,
    event_before    bytea NOT NULL,
    content_before  bytea NOT NULL,
    content_after   bytea,
    changed_at      timestamptz NOT NULL,
    changed_by      text COLLATE "C" NOT NULL,
    reason          text COLLATE "C" NOT NULL,
    PRIMARY KEY (global_position, event_id, number)
);
CREATE INDEX event_changes_after_seal_idx ON cqrs_es.event_changes (after_seal, global_position, event_id, number);
COMMENT ON TABLE cqrs_es.event_changes IS
    'changes of sealed events that were made by rule, as digests, by which verify_seals() tells them from forgeries; the next seal covers them';
COMMENT ON COLUMN cqrs_es.event_changes.number IS 'counts the changes of the event';
COMMENT ON COLUMN cqrs_es.event_changes.after_seal IS 'the newest seal when it was made';
COMMENT ON COLUMN cqrs_es.event_changes.content_before IS 'digest of payload and metadata, as it is part of that of the event';
COMMENT ON COLUMN cqrs_es.event_changes.content_after IS 'likewise; NULL: the event was removed';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.event_changes', '');

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.event_changes
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change('changes');

CREATE FUNCTION cqrs_es.note_change(before cqrs_es.event, after cqrs_es.event, reason text) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_note_change';
COMMENT ON FUNCTION cqrs_es.note_change(cqrs_es.event, cqrs_es.event, text) IS
    'notes that the transaction gives an event another payload or metadata, or removes it (after is NULL), for verify_seals(); false where it is not sealed, and nothing is noted';
REVOKE EXECUTE ON FUNCTION cqrs_es.note_change(cqrs_es.event, cqrs_es.event, text) FROM PUBLIC;
