-- A command: decided on the current state, refused, repeated, late.
SELECT cqrs_es.create_aggregate('plain purse', '{"balance": 0}');
SELECT cqrs_es.define_reducer('plain purse', 'PutIn', '[{"op": "increment", "path": "/balance", "from": "/amount"}]');
SELECT cqrs_es.define_reducer('plain purse', 'TakenOut', '[{"op": "decrement", "path": "/balance", "from": "/amount"}]');
SELECT cqrs_es.define_command('plain purse', 'PutIn', $$jsonb_build_object('type', 'PutIn', 'payload', command)$$);
CREATE FUNCTION take_out(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (command->>'amount')::numeric > (state->>'balance')::numeric THEN
		RETURN cqrs_es.reject('there is not so much in it', 'TOO_LITTLE');
	END IF;
	RETURN jsonb_build_object('type', 'TakenOut', 'payload', command);
END $$;
SELECT cqrs_es.define_command('plain purse', 'TakeOut', 'take_out(state, command)');

SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'PutIn', '{"amount": 100}');
SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'TakeOut', '{"amount": 30}');
SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'TakeOut', '{"amount": 71}');
SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'TakeOut', '{"amount": 1}', expected_version => 1);

-- sent twice, and the id used for something else
SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'TakeOut', '{"amount": 10}', command_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0002');
SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'TakeOut', '{"amount": 10}', command_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0002');
SELECT version, state FROM cqrs_es.execute_command('plain purse', 'a', 'TakeOut', '{"amount": 11}', command_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0002');

-- what is no command
SELECT * FROM cqrs_es.execute_command('plain purse', 'a', 'Burn');
SELECT cqrs_es.define_command('plain purse', 'Burn', 'no such expression');
DROP FUNCTION take_out;
SELECT sequence, event_type, payload FROM cqrs_es.read_stream('plain purse', 'a');
