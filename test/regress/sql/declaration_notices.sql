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
