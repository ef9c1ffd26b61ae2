-- A consumer's calls, written short, and what it has in hand.  Consumers are named;
-- events are shown as id/sequence, with ~attempt where it is not the first, and ! when
-- redriven.  Others are forgotten at each call, so that there is one share; not so in
-- a session with test.crowd = on.

CREATE TEMP TABLE hands (consumer text PRIMARY KEY, subscription text, batch uuid);
CREATE FUNCTION pg_temp.receive(subscription text, consumer text, max_count int DEFAULT 100, resume boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE token uuid; result text;
BEGIN
	IF current_setting('test.crowd', true) IS DISTINCT FROM 'on' THEN
		DELETE FROM cqrs_es.consumers c WHERE c.subscription = $1 AND c.consumer <> $2;
	END IF;
	SELECT min(r.batch::text)::uuid, string_agg(r.aggregate_id || '/' || r.sequence || CASE WHEN r.attempt > 1 THEN '~' || r.attempt ELSE '' END
		|| CASE WHEN r.redriven THEN '!' ELSE '' END, ' ' ORDER BY n) INTO token, result
	FROM (SELECT *, row_number() OVER () AS n FROM cqrs_es.receive_events($1, $2, $3, resume => $4)) r;
	IF token IS NOT NULL THEN
		INSERT INTO hands VALUES ($2, $1, token) ON CONFLICT ON CONSTRAINT hands_pkey DO UPDATE SET subscription = excluded.subscription, batch = excluded.batch;
	END IF;
	RETURN coalesce(result, '(nothing)');
END $$;
CREATE FUNCTION pg_temp.batch(consumer text) RETURNS uuid LANGUAGE sql AS $$ SELECT batch FROM hands h WHERE h.consumer = $1 $$;
CREATE FUNCTION pg_temp.ack(consumer text) RETURNS bigint LANGUAGE sql AS $$ SELECT cqrs_es.ack_events(pg_temp.batch($1)) $$;
-- the event is of the aggregate type with the subscription's name
CREATE FUNCTION pg_temp.at(subscription text, event text) RETURNS bigint LANGUAGE sql AS $$
	SELECT global_position FROM cqrs_es.events WHERE aggregate_type = $1 AND aggregate_id = split_part($2, '/', 1) AND sequence = split_part($2, '/', 2)::bigint
$$;
CREATE FUNCTION pg_temp.nack(consumer text, event text, give_up boolean DEFAULT false, retry_after interval DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT cqrs_es.nack_event(h.batch, pg_temp.at(h.subscription, $2), 'bad ' || $2, $4, $3) FROM hands h WHERE h.consumer = $1
$$;
-- times pass
CREATE FUNCTION pg_temp.expire(subscription text) RETURNS void LANGUAGE sql AS $$
	UPDATE cqrs_es.shares s SET leased_until = clock_timestamp() - interval '1 s' WHERE s.subscription = $1 AND batch IS NOT NULL
$$;
CREATE FUNCTION pg_temp.due(subscription text) RETURNS void LANGUAGE sql AS $$
	UPDATE cqrs_es.parked_streams p SET retry_at = clock_timestamp() - interval '1 s' WHERE p.subscription = $1 AND retry_at IS NOT NULL;
	UPDATE cqrs_es.shares s SET retry_at = NULL WHERE s.subscription = $1
$$;
-- the consumer dies: another one asks when the lease is over
CREATE FUNCTION pg_temp.dies(consumer text, next_one text, max_count int DEFAULT 100) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.expire(h.subscription) FROM hands h WHERE h.consumer = $1;
	SELECT pg_temp.receive(h.subscription, $2, $3) FROM hands h WHERE h.consumer = $1
$$;
CREATE FUNCTION pg_temp.append(aggregate_type text, events text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE id text;
BEGIN
	FOREACH id IN ARRAY string_to_array($2, ' ') LOOP
		PERFORM cqrs_es.append_event($1, id, 'e', '{}');
	END LOOP;
END $$;
CREATE FUNCTION pg_temp.parked(subscription text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(aggregate_id || '/' || sequence || CASE WHEN attempts > 0 THEN '~' || attempts ELSE '' END
		|| CASE WHEN retry_at IS NULL THEN ' blocked' ELSE '' END, ', ' ORDER BY aggregate_id COLLATE "C"), '(none)')
	FROM cqrs_es.parked_streams p WHERE p.subscription = $1
$$;
CREATE FUNCTION pg_temp.letters(subscription text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(aggregate_id || '/' || sequence || ' ' || state, ', ' ORDER BY id), '(none)')
	FROM cqrs_es.dead_letters d WHERE d.subscription = $1
$$;
-- all that is left, acknowledged batch by batch
CREATE FUNCTION pg_temp.drain(subscription text, consumer text, max_count int DEFAULT 100) RETURNS text LANGUAGE plpgsql AS $$
DECLARE batch text; result text := '';
BEGIN
	LOOP
		batch := pg_temp.receive($1, $2, $3);
		EXIT WHEN batch = '(nothing)';
		result := result || ' ' || batch;
		PERFORM pg_temp.ack($2);
		PERFORM pg_temp.due($1);
	END LOOP;
	RETURN coalesce(nullif(trim(result), ''), '(nothing)');
END $$;
CREATE FUNCTION pg_temp.sorted(events text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(e, ' ' ORDER BY e COLLATE "C") FROM unnest(string_to_array($1, ' ')) e $$;
