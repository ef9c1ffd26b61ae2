SELECT * FROM cqrs_es.append_event('account', :run || ' ' || :client_id::text, 'Deposited', :payload);
