-- 800_subscription: who takes events out of the log, which ones, and what follows when one fails

CREATE TABLE cqrs_es.subscriptions (
    name            text COLLATE "C" PRIMARY KEY,
    aggregate_types text[] COLLATE "C",
    event_types     text[] COLLATE "C",
    tags            text[] COLLATE "C",
    tenant_id       text COLLATE "C",
    ordering        text NOT NULL DEFAULT 'stream' CHECK (ordering IN ('stream', 'log')),
    on_failure      text NOT NULL DEFAULT 'block' CHECK (on_failure IN ('block', 'skip', 'stop')),
    max_attempts    integer NOT NULL DEFAULT 10 CHECK (max_attempts > 0),
    retry_delay     interval NOT NULL DEFAULT '1 s',
    retry_delay_max interval NOT NULL DEFAULT '5 min',
    lease           interval NOT NULL DEFAULT '30 s',
    owner           regrole,
    owner_name      text COLLATE "C" NOT NULL,
    consumer_role   regrole,
    consumer_role_name text COLLATE "C",
    paused          boolean NOT NULL DEFAULT false,
    stopped_error   text,
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- in the order of the log nothing can be handed out past what failed
    CHECK (ordering = 'stream' OR on_failure = 'stop'),
    CHECK (paused OR stopped_error IS NULL)
);
COMMENT ON TABLE cqrs_es.subscriptions IS 'subscriptions; kept by create_subscription';
COMMENT ON COLUMN cqrs_es.subscriptions.aggregate_types IS 'NULL: all';
COMMENT ON COLUMN cqrs_es.subscriptions.event_types IS 'NULL: all';
COMMENT ON COLUMN cqrs_es.subscriptions.tags IS 'all of which an event must have; NULL: whatever it has';
COMMENT ON COLUMN cqrs_es.subscriptions.tenant_id IS 'whose events; NULL: of all tenants';
COMMENT ON COLUMN cqrs_es.subscriptions.stopped_error IS
    'why it is paused, when it stopped by itself; NULL: somebody paused it';
COMMENT ON COLUMN cqrs_es.subscriptions.owner IS 'NULL: the role was missing when the row was restored';
COMMENT ON COLUMN cqrs_es.subscriptions.owner_name IS 'its name when the row was written';
COMMENT ON COLUMN cqrs_es.subscriptions.consumer_role IS 'whose members may receive and acknowledge, beside those of the owner';
COMMENT ON COLUMN cqrs_es.subscriptions.consumer_role_name IS 'its name when the row was written; NULL: nobody but the owner';
-- all rows, with the names of now and without oids
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.subscriptions', $$WHERE false UNION ALL
    SELECT (pg_catalog.jsonb_populate_record(s, pg_catalog.jsonb_build_object(
        'owner', NULL, 'owner_name',
        coalesce((SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
            WHERE r.oid OPERATOR(pg_catalog.=) s.owner), s.owner_name),
        'consumer_role', NULL, 'consumer_role_name',
        coalesce((SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
            WHERE r.oid OPERATOR(pg_catalog.=) s.consumer_role), s.consumer_role_name)))).*
    FROM cqrs_es.subscriptions AS s$$);

CREATE TRIGGER resolve_names BEFORE INSERT OR UPDATE ON cqrs_es.subscriptions
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.resolve_names();
ALTER TABLE cqrs_es.subscriptions ENABLE ALWAYS TRIGGER resolve_names;

ALTER TABLE cqrs_es.subscriptions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.subscriptions
    USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
COMMENT ON POLICY tenant_isolation ON cqrs_es.subscriptions IS
    'an ordinary role sees and writes rows of the current tenant, none of all tenants';
