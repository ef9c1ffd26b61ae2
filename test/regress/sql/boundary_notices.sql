-- What is said of boundaries that are declared again, and of those that are not there.
\set VERBOSITY default
SELECT cqrs_es.create_boundary('notices', '[{"tags": ["a:{/a}"]}]');
SELECT cqrs_es.create_boundary('notices', '[{"tags": ["a:{/a}"]}]');
SELECT cqrs_es.create_boundary('notices', '[{"tags": ["b:{/b}"]}]', '{"n": 1.0}', 5);
SELECT cqrs_es.create_boundary('notices', '{"items": [{"tags": ["b:{/b}"]}]}', '{"n": 1}', 5);
SELECT cqrs_es.create_aggregate('notices');
SELECT cqrs_es.drop_boundary('notices');
SELECT cqrs_es.drop_boundary('notices', if_exists => true);
SELECT cqrs_es.drop_boundary('notices');
SELECT cqrs_es.boundary_query('notices', '{}');
SELECT cqrs_es.execute_boundary('notices', 'Go');
