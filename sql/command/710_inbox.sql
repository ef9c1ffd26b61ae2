-- 710_inbox: which messages from outside have been received

-- Vacuum must not shorten it when messages have been forgotten: that would shut out all who
-- receive meanwhile. The room is used again.
CREATE TABLE cqrs_es.received_messages (
    tenant_id   text COLLATE "C" NOT NULL,
    source      text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (tenant_id, source, message_id)
) WITH (vacuum_truncate = off);
COMMENT ON TABLE cqrs_es.received_messages IS
    'messages that have been received; kept by receive_message(), until forget_messages()';
COMMENT ON COLUMN cqrs_es.received_messages.source IS 'who gives the ids: a queue, a sender';
COMMENT ON COLUMN cqrs_es.received_messages.received_at IS 'when receive_message() was called';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.received_messages', '');

ALTER TABLE cqrs_es.received_messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.received_messages
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.received_messages IS
    'an ordinary role sees and writes rows of the current tenant';

CREATE FUNCTION cqrs_es.receive_message(source text, message_id text) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_receive_message';
COMMENT ON FUNCTION cqrs_es.receive_message(text, text) IS
    'is this the first time that this message of the source is received? To be asked in the transaction that acts on it; one who asks meanwhile waits for the end of that';

CREATE PROCEDURE cqrs_es.forget_messages(older_than interval DEFAULT '7 days')
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_forget_messages';
COMMENT ON PROCEDURE cqrs_es.forget_messages(interval) IS
    'forgets the messages, of all tenants, that were received longer ago, and commits as it goes; nobody waits for it';
REVOKE EXECUTE ON PROCEDURE cqrs_es.forget_messages(interval) FROM PUBLIC;
