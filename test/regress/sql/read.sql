-- Reading as a client does: a stream, and the whole log in pages.
SELECT version FROM cqrs_es.append_events('plain reading', 'a', '[
	{"type": "One", "payload": {"n": 1}}, {"type": "Two", "payload": {"n": 2}, "version": "2"}, {"type": "Three", "payload": [3], "metadata": {"by": "me"}}]');
SELECT version FROM cqrs_es.append_event('plain reading', 'b', 'One', '{"n": 4}');

SELECT sequence, event_type, event_version, payload, metadata FROM cqrs_es.read_stream('plain reading', 'a');
SELECT sequence, event_type FROM cqrs_es.read_stream('plain reading', 'a', 2);
SELECT sequence, event_type FROM cqrs_es.read_stream('plain reading', 'a', max_count => 1);
SELECT sequence, event_type FROM cqrs_es.read_stream('plain reading', 'a', backward => true, max_count => 2);
SELECT sequence FROM cqrs_es.read_stream('plain reading', 'none');

-- page by page, going on after the last position seen
SELECT aggregate_id, sequence FROM cqrs_es.read_all(aggregate_types => '{plain reading}', max_count => 3);
SELECT max(global_position) AS seen FROM cqrs_es.read_all(aggregate_types => '{plain reading}', max_count => 3) \gset
SELECT aggregate_id, sequence FROM cqrs_es.read_all(after_position => :seen, aggregate_types => '{plain reading}', max_count => 3);
SELECT count(*) FROM cqrs_es.read_all(after_position => (SELECT max(global_position) FROM cqrs_es.read_all()));

-- another tenant sees nothing of it
SET cqrs_es.tenant_id = 'other';
SELECT sequence FROM cqrs_es.read_stream('plain reading', 'a');
SELECT count(*) FROM cqrs_es.read_all(aggregate_types => '{plain reading}');
RESET cqrs_es.tenant_id;

SELECT * FROM cqrs_es.read_stream('plain reading', 'a', max_count => -1);
SELECT * FROM cqrs_es.read_all(after_position => -1);
