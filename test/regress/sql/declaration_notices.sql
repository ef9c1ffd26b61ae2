-- What a declaration says that was made before: nothing when it is the same, else
-- what has changed. And two projections may keep one table, but hear of it.
SELECT FROM cqrs_es.create_aggregate('declared twice', initial_state => '{"n": 0}');
SELECT FROM cqrs_es.create_aggregate('declared twice', initial_state => '{"n": 0}');
SELECT FROM cqrs_es.create_aggregate('declared twice', initial_state => '{"n": 1}', keep_snapshots => 2);
SELECT FROM cqrs_es.create_aggregate('declared twice', initial_state => '{"n": 1}');

CREATE TABLE kept_twice (id text PRIMARY KEY);
SELECT FROM cqrs_es.create_projection('first keeper', read_models => '{kept_twice}');
SELECT FROM cqrs_es.create_projection('first keeper', read_models => '{kept_twice}');
SELECT FROM cqrs_es.create_projection('second keeper', read_models => '{kept_twice}');
SELECT FROM cqrs_es.create_projection('second keeper', read_models => '{kept_twice}');
SELECT FROM cqrs_es.create_projection('filled', backfill => true);
SELECT FROM cqrs_es.create_projection('filled', backfill => true);

-- also of those that it gets later
CREATE TABLE kept_by_third (id text PRIMARY KEY);
SELECT FROM cqrs_es.create_projection('third keeper', read_models => '{kept_by_third}');
SELECT FROM cqrs_es.alter_projection('third keeper', read_models => '{kept_by_third,kept_twice}');
SELECT FROM cqrs_es.alter_projection('third keeper', read_models => '{kept_by_third,kept_twice}');
SELECT FROM cqrs_es.alter_projection('third keeper', owner => current_user::regrole);
SELECT FROM cqrs_es.alter_projection('third keeper', read_models => '{kept_by_third}');
SELECT FROM cqrs_es.drop_projection('third keeper');
DROP TABLE kept_by_third;

SELECT FROM cqrs_es.drop_projection('first keepr');
SELECT FROM unnest(ARRAY['first keeper', 'second keeper', 'filled']) AS name, cqrs_es.drop_projection(name);
SELECT FROM cqrs_es.drop_aggregate('declared twise');
SELECT FROM cqrs_es.drop_aggregate('declared twice');
DROP TABLE kept_twice;

-- a partition is a part of its table
CREATE TABLE kept_in_parts (id text PRIMARY KEY) PARTITION BY LIST (id);
CREATE TABLE kept_in_parts_1 PARTITION OF kept_in_parts FOR VALUES IN ('1');
SELECT FROM cqrs_es.create_projection('whole keeper', read_models => '{kept_in_parts}');
SELECT FROM cqrs_es.create_projection('part keeper', read_models => '{kept_in_parts_1}');
SELECT FROM unnest(ARRAY['whole keeper', 'part keeper']) AS name, cqrs_es.drop_projection(name);
DROP TABLE kept_in_parts;

-- what an upcaster means for writers is said once, and nobody is kept out by one that is there already
CREATE FUNCTION lifted_twice(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SELECT FROM cqrs_es.define_upcaster('lifted twice', '1', '2', 'lifted_twice');
BEGIN;
SELECT FROM cqrs_es.define_upcaster('lifted twice', '1', '2', 'lifted_twice');
SELECT mode FROM pg_locks WHERE relation = 'cqrs_es.upcasters'::regclass AND mode LIKE '%Exclusive%';
COMMIT;

-- dropping what is not there
SELECT FROM cqrs_es.drop_upcaster('lifted twice', '1', if_exists => true);
SELECT FROM cqrs_es.drop_upcaster('lifted twice', '1', if_exists => true);
SELECT FROM cqrs_es.drop_upcaster('lifted twice', '1');
DROP FUNCTION lifted_twice;
SELECT FROM cqrs_es.drop_aggregate('nothing', if_exists => true);
SELECT FROM cqrs_es.drop_reducer('nothing', 'Nothing', if_exists => true);
SELECT FROM cqrs_es.drop_command('nothing', 'Nothing', if_exists => true);
SELECT FROM cqrs_es.drop_projection('nothing', if_exists => true);
SELECT FROM cqrs_es.drop_handler('nothing', 'Nothing', if_exists => true);
SELECT FROM cqrs_es.create_projection('something');
SELECT FROM cqrs_es.drop_handler('something', 'Nothing', if_exists => true);
SELECT FROM cqrs_es.drop_projection('something', if_exists => true);
