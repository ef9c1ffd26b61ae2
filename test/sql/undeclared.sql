\i test/include/setup.sql
-- An aggregate type that is not declared: whoever needs it says the same.
BEGIN;
SELECT plan(8);
CREATE FUNCTION pg_temp.error_of(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE 'SELECT cqrs_es.' || call;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE, SQLERRM, detail, hint);
END $$;
SELECT is(pg_temp.error_of(call), E'QE101\naggregate type "it''s" is not declared\n'
	'Events of any type can be appended and read; state, snapshots and reducers need a declaration.\n'
	'Declare it with SELECT cqrs_es.create_aggregate(''it''''s'').', call)
FROM unnest(ARRAY[
	$$alter_aggregate('it''s', snapshot_every => 1)$$,
	$$drop_aggregate('it''s')$$,
	$$define_reducer('it''s', 'e', '[]')$$,
	$$drop_reducer('it''s', 'e')$$,
	$$define_command('it''s', 'c', '''[]''')$$,
	$$take_snapshot('it''s', 'a')$$,
	$$aggregate_state('it''s', 'a')$$,
	$$execute_command('it''s', 'a', 'c')$$]) WITH ORDINALITY u (call, n) ORDER BY n;
SELECT finish();
ROLLBACK;
