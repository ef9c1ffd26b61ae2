-- University circles: fields that may stay away, names that are unique, and a read side
-- outside of the database.
--
--	psql -d an_empty_database -f examples/circle.sql
--
-- Commands CreateCircle{circle_name, capacity}, UpdateCircle{circle_name?,
-- capacity?}; events CircleCreated{name, capacity}, CircleUpdated{name?,
-- capacity?}; the state {id, name, capacity, version}.
--
-- The read side of 8 and 9 is a table here; with relay.py and circle.py it is in Redis.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. How events change the state: what is absent or null in an update stays as it was ***\n'

CREATE EXTENSION cqrs_es;

-- (Merging, which needs no reducer, would take a null as "remove the name".)
SELECT cqrs_es.create_aggregate('circle', snapshot_every => 5);
SELECT cqrs_es.define_reducer('circle', 'CircleCreated', '[
    {"op": "set", "path": "/id",       "from": "aggregate_id"},
    {"op": "set", "path": "/name",     "from": "/name"},
    {"op": "set", "path": "/capacity", "from": "/capacity"},
    {"op": "set", "path": "/version",  "from": "sequence"}]');
SELECT cqrs_es.define_reducer('circle', 'CircleUpdated', '[
    {"op": "set", "path": "/name",     "from": "/name",     "optional": true},
    {"op": "set", "path": "/capacity", "from": "/capacity", "optional": true},
    {"op": "set", "path": "/version",  "from": "sequence"}]');

\echo '\n*** 2. The read table. Its unique index is what nobody gets around ***\n'

CREATE TABLE circles (
    id       text PRIMARY KEY,
    name     text NOT NULL UNIQUE,
    capacity smallint NOT NULL,
    version  bigint NOT NULL
);

SELECT cqrs_es.create_projection('circles', aggregate_types => '{circle}', read_models => '{circles}');
SELECT cqrs_es.define_handler('circles', 'CircleCreated', $$
    INSERT INTO circles (id, name, capacity, version)
    VALUES (event.aggregate_id, event.payload->>'name', (event.payload->>'capacity')::smallint, event.sequence)
$$);
SELECT cqrs_es.define_handler('circles', 'CircleUpdated', $$
    UPDATE circles SET name     = coalesce(event.payload->>'name', name),
                       capacity = coalesce((event.payload->>'capacity')::smallint, capacity),
                       version  = event.sequence
    WHERE id = event.aggregate_id
$$);

CREATE FUNCTION get_circle(id text) RETURNS SETOF circles LANGUAGE sql STABLE AS $$
    SELECT * FROM circles WHERE circles.id = get_circle.id
$$;
CREATE FUNCTION list_circles() RETURNS SETOF circles LANGUAGE sql STABLE AS $$
    SELECT * FROM circles ORDER BY name
$$;

\echo '\n*** 3. Commands. A decider may look into tables, here for other circles of that name ***\n'

-- Two sessions that want the same name at the same time would both find it free.
-- So whoever comes second waits until the first has committed, and then sees its
-- row: that is the refusal below, not a violation of the unique index. (The lock
-- and the look are two statements, since the second must see what happened
-- during the first. Who sends these commands names the version that was seen, as below:
-- then there is no second try, which would have to queue up with the lock held.)
CREATE FUNCTION name_is_taken(name text, circle_id text) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('circle name ' || name, 0));
    SELECT EXISTS (SELECT FROM circles WHERE circles.name = name_is_taken.name AND id <> circle_id);
$$;

SELECT cqrs_es.define_command('circle', 'CreateCircle', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('Circle already created', code => 'ALREADY_CREATED')
        WHEN (command @@ 'strict $.circle_name > ""') IS NOT TRUE THEN
            cqrs_es.reject('Circle name is missing', code => 'NO_NAME')
        WHEN (command @@ 'strict $.capacity >= 3') IS NOT TRUE THEN
            cqrs_es.reject('Circle capacity must be 3 or more', code => 'CAPACITY_TOO_SMALL')
        WHEN (command @@ 'strict $.capacity <= 10000') IS NOT TRUE THEN
            cqrs_es.reject('Circle capacity must be 10000 or less', code => 'CAPACITY_TOO_LARGE')
        WHEN (command @@ 'strict $.capacity.floor() == $.capacity') IS NOT TRUE THEN
            cqrs_es.reject('Circle capacity must be a whole number', code => 'CAPACITY_NOT_WHOLE')
        WHEN name_is_taken(command->>'circle_name', aggregate_id) THEN
            cqrs_es.reject('Circle name already exists', code => 'NAME_TAKEN')
        ELSE
            jsonb_build_object('type', 'CircleCreated',
                               'payload', jsonb_build_object('name', command->>'circle_name',
                                                             'capacity', (command->>'capacity')::numeric::smallint))
    END
$$);
SELECT cqrs_es.define_command('circle', 'UpdateCircle', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('Circle not found', code => 'NOT_FOUND')
        WHEN command->>'circle_name' IS NULL AND command->>'capacity' IS NULL THEN
            cqrs_es.reject('Nothing to update', code => 'NOTHING')
        WHEN command->>'circle_name' IS NOT NULL AND (command @@ 'strict $.circle_name > ""') IS NOT TRUE THEN
            cqrs_es.reject('Circle name is missing', code => 'NO_NAME')
        WHEN command->>'capacity' IS NOT NULL AND (command @@ 'strict $.capacity >= 3') IS NOT TRUE THEN
            cqrs_es.reject('Circle capacity must be 3 or more', code => 'CAPACITY_TOO_SMALL')
        WHEN command->>'capacity' IS NOT NULL AND (command @@ 'strict $.capacity <= 10000') IS NOT TRUE THEN
            cqrs_es.reject('Circle capacity must be 10000 or less', code => 'CAPACITY_TOO_LARGE')
        WHEN command->>'capacity' IS NOT NULL AND (command @@ 'strict $.capacity.floor() == $.capacity') IS NOT TRUE THEN
            cqrs_es.reject('Circle capacity must be a whole number', code => 'CAPACITY_NOT_WHOLE')
        WHEN name_is_taken(command->>'circle_name', aggregate_id) THEN
            cqrs_es.reject('Circle name already exists', code => 'NAME_TAKEN')
        ELSE
            jsonb_build_object('type', 'CircleUpdated',
                               'payload', jsonb_build_object('name', command->>'circle_name',
                                                             'capacity', (command->>'capacity')::numeric::smallint))
    END
$$);

\echo '\n*** ... and a queue of what goes outside, to a read side that others ask ***\n'

SELECT cqrs_es.create_subscription('circles', aggregate_types => '{circle}', max_attempts => 5);

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off

\echo '\n*** 4. Two circles, and updates. Whoever sends a command says which version that was: 0, none ***\n'

SELECT version, state FROM cqrs_es.execute_command('circle', 'c-1', 'CreateCircle', '{"circle_name": "Chess", "capacity": 10}', expected_version => 0);
SELECT version, state FROM cqrs_es.execute_command('circle', 'c-2', 'CreateCircle', '{"circle_name": "Tennis", "capacity": 4}', expected_version => 0);

-- A name alone, a capacity alone, and a null: what is not given stays as it was.
SELECT version, state FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"circle_name": "Chess and Go"}', expected_version => 1);
SELECT version, state FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"capacity": 12}', expected_version => 2);
SELECT version, state FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"circle_name": null, "capacity": 14}', expected_version => 3);

SELECT sequence, event_type, payload FROM cqrs_es.read_stream('circle', 'c-1');

\echo '\n*** 5. A stale version is the version conflict ***\n'

SELECT * FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"capacity": 30}', expected_version => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 6. Refusals ***\n'

SELECT * FROM cqrs_es.execute_command('circle', 'c-3', 'CreateCircle', '{"circle_name": "Duets", "capacity": 2}');
SELECT * FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"capacity": 2}', expected_version => 4);
SELECT * FROM cqrs_es.execute_command('circle', 'c-3', 'CreateCircle', '{"circle_name": "Tennis", "capacity": 8}');
SELECT * FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"circle_name": "Tennis"}', expected_version => 4);
SELECT * FROM cqrs_es.execute_command('circle', 'c-1', 'CreateCircle', '{"circle_name": "Bridge", "capacity": 8}');
SELECT * FROM cqrs_es.execute_command('circle', 'c-9', 'UpdateCircle', '{"capacity": 8}');

-- Who goes past the commands meets the index. The event is not in the log either.
SELECT * FROM cqrs_es.append_event('circle', 'c-3', 'CircleCreated', '{"name": "Tennis", "capacity": 8}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT cqrs_es.stream_version('circle', 'c-3');

-- One's own name is not taken, and one that was given up is free.
SELECT version, state FROM cqrs_es.execute_command('circle', 'c-1', 'UpdateCircle', '{"circle_name": "Chess and Go", "capacity": 16}', expected_version => 4);
SELECT version, state FROM cqrs_es.execute_command('circle', 'c-3', 'CreateCircle', '{"circle_name": "Chess", "capacity": 8}', expected_version => 0);

\echo '\n*** 7. Queries, and the snapshot of every fifth event ***\n'

SELECT * FROM get_circle('c-1');
SELECT * FROM list_circles();
SELECT aggregate_id, last_sequence, payload FROM cqrs_es.snapshots;

\echo '\n*** 8. A read side outside. A relay takes events from the queue and hands them on; what it had in hand when it died comes again ***\n'

-- It keeps the version with each circle: so it passes over what it has got already.
CREATE TABLE outside (id text PRIMARY KEY, name text, capacity text, version bigint);
CREATE FUNCTION put(id text, sequence bigint, payload jsonb) RETURNS text LANGUAGE sql AS $$
    WITH put AS (
        INSERT INTO outside AS o VALUES (id, payload->>'name', payload->>'capacity', sequence)
        ON CONFLICT (id) DO UPDATE SET name     = coalesce(excluded.name, o.name),
                                       capacity = coalesce(excluded.capacity, o.capacity),
                                       version  = excluded.version
        WHERE o.version < excluded.version
        RETURNING true)
    SELECT CASE WHEN EXISTS (SELECT FROM put) THEN 'put' ELSE 'was there' END
$$;

CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('circles', consumer => 'psql', max_count => 4);
SELECT aggregate_id, sequence, event_type, payload, put(aggregate_id, sequence, payload) FROM hand WHERE sequence < 3 ORDER BY global_position;
SELECT cqrs_es.release_batch(batch) FROM hand LIMIT 1;

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('circles', consumer => 'psql', max_count => 100);
SELECT aggregate_id, sequence, event_type, payload, put(aggregate_id, sequence, payload) FROM hand ORDER BY global_position;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
SELECT * FROM outside ORDER BY name;

\echo '\n*** 9. All of it is lost. It is made again from the events ***\n'

TRUNCATE outside;
SELECT cqrs_es.reset_subscription('circles', 0);
DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('circles', consumer => 'psql', max_count => 100);
SELECT put(aggregate_id, sequence, payload), count(*) FROM (SELECT * FROM hand ORDER BY global_position) AS h GROUP BY 1;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
SELECT * FROM outside ORDER BY name;
