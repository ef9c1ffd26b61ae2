-- Each client has a stream of its own: the sequence of an event says in which of its
-- transactions it was appended.
SELECT * FROM cqrs_es.append_event(:type, :client_id::text, 'Deposited', :payload);
