-- 750_projection: read models kept current in the appending transaction

CREATE TABLE cqrs_es.projections (
    name            text COLLATE "C" PRIMARY KEY,
    aggregate_types text[] COLLATE "C",
    tags            text[] COLLATE "C",
    read_models     regclass[],
    read_model_names text[] COLLATE "C",
    owner           regrole,
    owner_name      text COLLATE "C" NOT NULL,
    state_of        text COLLATE "C",
    paused          boolean NOT NULL DEFAULT false,
    mode            text NOT NULL DEFAULT 'sync' CHECK (mode IN ('sync', 'async')),
    per_stream      boolean NOT NULL DEFAULT false,
    handled_position bigint,
    handled_gaps    int8multirange,
    rebuilt_to      bigint,
    rebuilt_tags    bigint,
    live_after      boolean NOT NULL DEFAULT false,
    redacted_position bigint,
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK (paused OR mode = 'async' OR rebuilt_to IS NULL),
    CHECK (rebuilt_tags IS NULL OR rebuilt_to IS NOT NULL AND tags IS NOT NULL),
    CHECK (paused OR NOT live_after),
    CHECK ((paused OR mode = 'async') = (handled_position IS NOT NULL)),
    CHECK (mode = 'async' OR NOT per_stream),
    CHECK (tags IS NULL OR state_of IS NULL),
    -- a pair of names for each
    CHECK (coalesce(2 * pg_catalog.cardinality(read_models) = pg_catalog.cardinality(read_model_names), read_models IS NULL)),
    -- the states of one aggregate type stand in one table
    CHECK (state_of IS NULL OR coalesce(pg_catalog.cardinality(aggregate_types) = 1 AND pg_catalog.cardinality(read_model_names) = 2, false))
-- who appends locks it, and would be shut out while vacuum shortens it
) WITH (vacuum_truncate = off);
COMMENT ON TABLE cqrs_es.projections IS 'projections; kept by create_projection';
COMMENT ON COLUMN cqrs_es.projections.aggregate_types IS 'NULL: all';
COMMENT ON COLUMN cqrs_es.projections.tags IS 'all of which an event must have; NULL: whatever it has';
COMMENT ON COLUMN cqrs_es.projections.state_of IS
    'keeps the states of this aggregate type in its read model, instead of having handlers';
COMMENT ON COLUMN cqrs_es.projections.mode IS
    'sync: it handles events in the transactions that append them; async: afterwards, whoever runs it';
COMMENT ON COLUMN cqrs_es.projections.per_stream IS
    'of an asynchronous one: each stream for itself, so that one whose event fails does not hold up the others';
COMMENT ON COLUMN cqrs_es.projections.handled_position IS
    'the last event that a paused projection has handled; of an asynchronous one that is not paused: the last that it passes over, for it was handled before';
COMMENT ON COLUMN cqrs_es.projections.handled_gaps IS
    'positions up to it that were not visible then, and may have been missed';
COMMENT ON COLUMN cqrs_es.projections.rebuilt_to IS
    'of a rebuild in portions that is not at its end: events up to this position are replayed, nothing may be appended for them';
COMMENT ON COLUMN cqrs_es.projections.rebuilt_tags IS
    'of such a rebuild of a projection with tags: stands for how these were defined when it began';
COMMENT ON COLUMN cqrs_es.projections.live_after IS
    'of such a rebuild: the projection was live before, and is to be so again at the end';
COMMENT ON COLUMN cqrs_es.projections.redacted_position IS
    'of the first event $redacted that it was not told of: what was erased stands in its read models until it is rebuilt';
COMMENT ON COLUMN cqrs_es.projections.read_models IS '-: one that was missing when the row was restored';
COMMENT ON COLUMN cqrs_es.projections.read_model_names IS 'pairs of schema and table, as they were called when the row was written';
COMMENT ON COLUMN cqrs_es.projections.owner IS 'NULL: the role was missing when the row was restored';
COMMENT ON COLUMN cqrs_es.projections.owner_name IS 'its name when the row was written';
-- all rows, with the names of now and without oids
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.projections', $$WHERE false UNION ALL
    SELECT (pg_catalog.jsonb_populate_record(p, pg_catalog.jsonb_build_object('read_models', NULL, 'read_model_names',
        coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                coalesce(n.nspname, p.read_model_names[i][1]), coalesce(t.relname, p.read_model_names[i][2])) ORDER BY i)
            FROM pg_catalog.generate_subscripts(p.read_model_names, 1) AS i
            LEFT JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) p.read_models[i]
            LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.relnamespace),
            pg_catalog.to_jsonb(p.read_model_names)),
        'owner', NULL, 'owner_name',
        coalesce((SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
            WHERE r.oid OPERATOR(pg_catalog.=) p.owner), p.owner_name)))).*
    FROM cqrs_es.projections AS p$$);

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.projections FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.projections ENABLE ALWAYS TRIGGER registry_changed;

CREATE TRIGGER resolve_names BEFORE INSERT OR UPDATE ON cqrs_es.projections
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.resolve_names();
ALTER TABLE cqrs_es.projections ENABLE ALWAYS TRIGGER resolve_names;

CREATE FUNCTION cqrs_es.create_projection(
    name            text,
    aggregate_types text[] DEFAULT NULL,
    read_models     regclass[] DEFAULT NULL,
    state_of        text DEFAULT NULL,
    backfill        boolean DEFAULT false,
    mode            text DEFAULT NULL,
    per_stream      boolean DEFAULT NULL,
    tags            text[] DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_projection';
COMMENT ON FUNCTION cqrs_es.create_projection(text, text[], regclass[], text, boolean, text, boolean, text[]) IS
    'creates a projection: for which aggregate types (NULL: all), and which tables it keeps; state_of: one that keeps the states of an aggregate type in a table (view_id, version, payload); backfill: paused, until resume_projection() has filled it from the log; mode: sync (when it is new, the default), in the transactions that append, or async, afterwards by run_projections(); per_stream: an asynchronous one in which an event that fails holds up its stream alone; tags: only for events that have all of them';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_projection(text, text[], regclass[], text, boolean, text, boolean, text[]) FROM PUBLIC;

CREATE FUNCTION cqrs_es.alter_projection(name text, owner regrole DEFAULT NULL, read_models regclass[] DEFAULT NULL,
    mode text DEFAULT NULL, per_stream boolean DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_alter_projection';
COMMENT ON FUNCTION cqrs_es.alter_projection(text, regrole, regclass[], text, boolean) IS
    'changes the owner of a projection, the tables that it keeps, or how it follows the log: its mode, sync or async, and per_stream; NULL: as it is. Its handlers stay as they are';
REVOKE EXECUTE ON FUNCTION cqrs_es.alter_projection(text, regrole, regclass[], text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_projection(name text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_projection';
COMMENT ON FUNCTION cqrs_es.drop_projection(text, boolean) IS
    'drops a projection with its handlers; its read models stay; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_projection(text, boolean) FROM PUBLIC;
