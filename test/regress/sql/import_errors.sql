-- What an import that fails says: what is wrong, and not the statement that was made of it.
CREATE TABLE import_source (aggregate_type text, aggregate_id text, event_type text, payload jsonb, sequence bigint);
INSERT INTO import_source VALUES ('import errors', '1', 'e', NULL, 1);
SELECT imported FROM cqrs_es.import_events('import_source');
UPDATE import_source SET payload = '{}', event_type = '';
SELECT imported FROM cqrs_es.import_events('import_source');
UPDATE import_source SET event_type = 'e';
CREATE TABLE import_model (id text PRIMARY KEY);
SELECT FROM cqrs_es.create_projection('import errors', '{import errors}', '{import_model}');
SELECT FROM cqrs_es.define_handler('import errors', 'e', $$INSERT INTO import_model VALUES (event.payload->'x'->>0)$$);
SELECT imported FROM cqrs_es.import_events('import_source');
SELECT FROM cqrs_es.drop_projection('import errors');
CREATE VIEW "import View" AS SELECT aggregate_type, aggregate_id, event_type, to_jsonb(1 / (sequence - 1)) AS payload, sequence FROM import_source;
SELECT imported FROM cqrs_es.import_events('"import View"');
CREATE VIEW import_columns AS SELECT aggregate_type, aggregate_id, event_type, 1 AS payload, sequence FROM import_source;
SELECT imported FROM cqrs_es.import_events('import_columns');
DROP TABLE import_source, import_model CASCADE;
