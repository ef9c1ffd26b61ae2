\i test/include/setup.sql
-- An aggregate type that is not declared: whoever needs it says the same.
BEGIN;
SELECT plan(7);
SELECT is(pg_temp.error_of('SELECT cqrs_es.' || call), ARRAY['QE101', 'aggregate type "it''s" is not declared',
	'Events of any type can be appended and read; state, snapshots and reducers need a declaration.',
	'Declare it with SELECT cqrs_es.create_aggregate(''it''''s'').'], call)
FROM unnest(ARRAY[
	$$alter_aggregate('it''s', snapshot_every => 1)$$,
	$$take_snapshot('it''s', 'a')$$,
	$$aggregate_state('it''s', 'a')$$,
	$$execute_command('it''s', 'a', 'c')$$]) WITH ORDINALITY u (call, n) ORDER BY n;
-- what boundaries have as well
SELECT is(pg_temp.error_of('SELECT cqrs_es.' || call), ARRAY['QE101', 'aggregate type "it''s" is not declared',
	'Nor is a boundary of that name.',
	'Declare it with SELECT cqrs_es.create_aggregate(''it''''s''), or with create_boundary().'], call)
FROM unnest(ARRAY[
	$$define_reducer('it''s', 'e', '[]')$$,
	$$drop_reducer('it''s', 'e')$$,
	$$define_command('it''s', 'c', '''[]''')$$]) WITH ORDINALITY u (call, n) ORDER BY n;
SELECT finish();
ROLLBACK;
