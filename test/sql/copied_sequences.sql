\i test/include/setup.sql
-- In a copy of the tables sequences may lag behind: what is drawn from them is taken already.
\i test/include/consumer.sql
SELECT plan(7);
SELECT cqrs_es.create_subscription('copied', aggregate_types => '{copied}', max_attempts => 1) IS NULL AS x \gset
SELECT pg_temp.append('copied', 'a b c d e f g h') IS NULL AS x \gset
SELECT is(pg_temp.receive('copied', 'c', 4), 'a/1 b/1 c/1 d/1', 'a batch');
SELECT pg_temp.nack('c', x || '/1') AS nacked FROM unnest('{a,b,c}'::text[]) x \g /dev/null
SELECT is(pg_temp.ack('c') || ' ' || pg_temp.letters('copied'), '1 a/1 blocked, b/1 blocked, c/1 blocked', 'of which three fail for good');
SELECT setval('cqrs_es.dead_letter_ids', (SELECT min(id) FROM cqrs_es.dead_letters WHERE subscription = 'copied'), false) AS x \gset
SELECT is(pg_temp.receive('copied', 'c', 4), 'e/1 f/1 g/1 h/1', 'the next batch');
SELECT pg_temp.nack('c', x || '/1') AS nacked FROM unnest('{e,f}'::text[]) x \g /dev/null
SELECT is(pg_temp.ack('c') || ' ' || pg_temp.letters('copied'), '2 a/1 blocked, b/1 blocked, c/1 blocked, e/1 blocked, f/1 blocked', 'letters have other ids');
-- shares
SET test.crowd = on;
SELECT setval('cqrs_es.share_numbers', (SELECT min(share) FROM cqrs_es.shares), false) AS x \gset
SELECT pg_temp.append('copied', 's t u v w x y z') IS NULL AS x \gset
SELECT isnt(pg_temp.receive('copied', 'c', 1), '(nothing)', 'a consumer');
SELECT pg_temp.ack('c') IS NULL AS x, pg_temp.receive('copied', 'c2', 1) IS NULL AS y \gset
SELECT cmp_ok((SELECT count(*) FROM cqrs_es.shares WHERE subscription = 'copied'), '>', 1::bigint, 'and another, for whom the share is split');
RESET test.crowd;
SELECT is((SELECT bit_count(bit_or(slots)) = 256 AND sum(bit_count(slots)) = 256 FROM cqrs_es.shares WHERE subscription = 'copied'), true, 'no slot is lost');
SELECT cqrs_es.drop_subscription('copied') IS NULL AS x \gset
