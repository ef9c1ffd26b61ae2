-- 390_published: up to where is the log settled?  The publisher tells subscribers
-- (publish_settled: 410_publisher).

CREATE TABLE cqrs_es.published_positions (
    node_id    integer PRIMARY KEY,
    "position" bigint NOT NULL,
    publisher  text NOT NULL
);
COMMENT ON TABLE cqrs_es.published_positions IS
    'up to where the log is settled, for subscribers of a logical replication; kept by publish_settled';
COMMENT ON COLUMN cqrs_es.published_positions.publisher IS 'the server and database that said it';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.published_positions', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.published_positions FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.published_positions ENABLE ALWAYS TRIGGER registry_changed;
