\set stream random(1, 10000)
SELECT * FROM cqrs_es.append_event('account', :stream, 'Deposited', :payload);
