-- Appending as a client sees it: versions, and what is said to whom is late.
SELECT version FROM cqrs_es.append_event('plain account', '42', 'Opened', '{"owner": "Ada"}', expected_version => 0);
SELECT version FROM cqrs_es.append_event('plain account', '42', 'Deposited', '{"amount": 100}');
SELECT version FROM cqrs_es.append_events('plain account', '42', '[
	{"type": "Withdrawn", "payload": {"amount": 30}},
	{"type": "Withdrawn", "payload": {"amount": 20}, "metadata": {"atm": "A7"}, "version": "2"}]', expected_version => 2);
SELECT version FROM cqrs_es.append_event_arrays('plain account', '42', '{Deposited,Closed}', ARRAY['{"amount": 1}', '{}']::jsonb[], -1);
SELECT cqrs_es.stream_version('plain account', '42'), cqrs_es.stream_version('plain account', 'none');

-- the wrong version, one that must not be there, one that must
SELECT * FROM cqrs_es.append_event('plain account', '42', 'Withdrawn', '{"amount": 80}', expected_version => 1);
SELECT * FROM cqrs_es.append_event('plain account', '42', 'Opened', '{}', expected_version => 0);
SELECT * FROM cqrs_es.append_event('plain account', 'none', 'Withdrawn', '{"amount": 80}', expected_version => -1);

-- sent twice, and the id used for something else
SELECT version FROM cqrs_es.append_event('plain account', '43', 'Opened', '{"owner": "Grace"}', event_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0001');
SELECT version FROM cqrs_es.append_event('plain account', '43', 'Opened', '{"owner": "Grace"}', event_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0001');
SELECT version FROM cqrs_es.append_event('plain account', '43', 'Opened', '{"owner": "Alan"}', event_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0001');

-- the table is an interface, too
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
VALUES ('plain account', '44', 'Opened', '{"owner": "Alan"}'), ('plain account', '44', 'Deposited', '{"amount": 7}') RETURNING sequence;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('plain account', '44', 4, 'Deposited', '{}');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('plain account', '44', 2, 'Deposited', '{}');
UPDATE cqrs_es.events SET payload = '{}';
DELETE FROM cqrs_es.events;
TRUNCATE cqrs_es.events;

-- what is no event
SELECT * FROM cqrs_es.append_event('plain account', '', 'Opened', '{}');
SELECT * FROM cqrs_es.append_event('plain account', '42', NULL, '{}');
SELECT * FROM cqrs_es.append_events('plain account', '42', '{"type": "Opened"}');
SELECT * FROM cqrs_es.append_events('plain account', '42', '[{"type": "Opened", "payload": {}, "when": "now"}]');
