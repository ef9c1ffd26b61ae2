-- Each client has a stream of its own.
SELECT global_position FROM cqrs_es.append_event('account', :client_id::text, 'Deposited', :payload) \gset
CALL cqrs_es.wait_for_projection('accounts', :global_position);
