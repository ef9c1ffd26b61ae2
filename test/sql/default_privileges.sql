\i test/include/setup.sql
-- Whatever default privileges there are, CREATE EXTENSION gives the same rights.
BEGIN;
SELECT plan(9);

CREATE FUNCTION pg_temp.rights() RETURNS TABLE (object text, grantee text, privilege text) LANGUAGE sql AS $$
	SELECT o.object, CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END, privilege_type
	FROM (
		SELECT 'schema' AS object, coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM pg_namespace WHERE nspname = 'cqrs_es'
		UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace
		UNION ALL SELECT oid::regclass::text, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
		FROM pg_class WHERE relnamespace = 'cqrs_es'::regnamespace AND relkind IN ('r', 'v', 'S')
		UNION ALL SELECT format('type %s', oid::regtype), coalesce(typacl, acldefault('T', typowner))
		FROM pg_type WHERE typnamespace = 'cqrs_es'::regnamespace AND typname IN ('event', 'append_result')
	) AS o, aclexplode(acl) AS a
$$;
SET LOCAL client_min_messages = error;
DROP EXTENSION cqrs_es CASCADE;
CREATE EXTENSION cqrs_es;
CREATE TEMP TABLE rights_as_ever AS SELECT * FROM pg_temp.rights();
CREATE ROLE cqrs_es_favourite;
CREATE ROLE cqrs_es_service;

CREATE FUNCTION pg_temp.rights_with(defaults text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	DROP EXTENSION cqrs_es CASCADE;
	EXECUTE (SELECT string_agg('ALTER DEFAULT PRIVILEGES ' || d, ';') FROM unnest(string_to_array(defaults, '; ')) AS d);
	CREATE EXTENSION cqrs_es;
	RETURN QUERY SELECT format('more: %s', r) FROM (SELECT * FROM pg_temp.rights() EXCEPT SELECT * FROM rights_as_ever) AS r
		UNION ALL SELECT format('less: %s', r) FROM (SELECT * FROM rights_as_ever EXCEPT SELECT * FROM pg_temp.rights()) AS r;
END $$;
SELECT is_empty(format('SELECT * FROM pg_temp.rights_with(%L)', defaults), defaults)
FROM unnest(ARRAY['REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC', 'REVOKE USAGE ON TYPES FROM PUBLIC', 'GRANT ALL ON TABLES TO cqrs_es_favourite',
	'GRANT SELECT ON TABLES TO PUBLIC', 'GRANT EXECUTE ON FUNCTIONS TO cqrs_es_favourite WITH GRANT OPTION',
	'GRANT ALL ON SCHEMAS TO cqrs_es_favourite; GRANT ALL ON SEQUENCES TO cqrs_es_favourite, PUBLIC']) AS defaults;

-- README's grants suffice
SET LOCAL client_min_messages = warning;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_service;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_service;
SET ROLE cqrs_es_service;
SELECT is((cqrs_es.append_event('a', '1', 'e', '{}')).version, 1::bigint, 'a service appends');
SELECT is(count(*), 1::bigint, 'and reads') FROM cqrs_es.read_stream('a', '1');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('a', '1', 'e', '{}');
SELECT is(cqrs_es.stream_version('a', '1'), 2::bigint, 'a plain INSERT, too');
RESET ROLE;
SELECT finish();
ROLLBACK;
