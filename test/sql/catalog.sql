\i test/include/setup.sql
-- What must hold of everything that the extension installs, now and later: each rule
-- is a query for what breaks it, with a breach that shows that the query would find
-- one.
BEGIN;
\set script `cat sql/*/[0-9][0-9][0-9]_*.sql sql/[0-9][0-9][0-9]_*.sql`

CREATE VIEW pg_temp.functions AS
SELECT p.*, format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) AS signature,
	l.lanname, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
	EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE a.grantee = 0) AS is_public
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'cqrs_es'::regnamespace;

CREATE VIEW pg_temp.relations AS
SELECT c.*, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped) AS has_tenant,
	EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'aggregate_id' AND NOT a.attisdropped) AS is_of_streams
FROM pg_class c WHERE c.relnamespace = 'cqrs_es'::regnamespace;

CREATE VIEW pg_temp.members AS
SELECT o.* FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) o
WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cqrs_es');

-- the statements of the install script, without comments
CREATE TEMP TABLE statements AS
SELECT btrim(s, E' \n') AS statement
FROM regexp_split_to_table(regexp_replace(:'script', '(^|\n)(--|\\echo)[^\n]*', '', 'g'), ';[ ]*(?=\n|$)') s
WHERE btrim(s, E' \n') <> '';

CREATE TEMP TABLE rules (n serial, rule text, violations text, breach text);
INSERT INTO rules (rule, violations, breach) VALUES
	-- functions
	('every function has a comment',
		$$SELECT signature FROM functions WHERE coalesce(obj_description(oid, 'pg_proc'), '') = ''$$,
		$$CREATE FUNCTION cqrs_es.planted() RETURNS int LANGUAGE sql RETURN 1$$),
	('every function is C, or its names are resolved for good',
		$$SELECT signature FROM functions WHERE lanname NOT IN ('c', 'internal') AND prosqlbody IS NULL
		AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)$$,
		$$CREATE FUNCTION cqrs_es.planted() RETURNS int LANGUAGE sql SET search_path = public AS 'SELECT 1'$$),
	('every C symbol begins with the name of the schema and of the function',
		$$SELECT signature, prosrc FROM functions WHERE lanname = 'c' AND NOT starts_with(prosrc, 'cqrs_es_' || proname)$$,
		$$ALTER FUNCTION cqrs_es.current_tenant() RENAME TO planted$$),
	('no function is SECURITY DEFINER, but those of event triggers, which everybody''s DROP or ALTER calls',
		$$SELECT signature FROM functions WHERE prosecdef AND proname NOT IN ('protect_declared', 'keep_place', 'keep_shape', 'keep_shape_of_drops', 'keep_partitions_whole')$$,
		$$ALTER FUNCTION cqrs_es.read_all SECURITY DEFINER$$),
	('what everybody''s DROP calls is not compiled first, which would take longer than the DROP',
		$$SELECT signature FROM functions WHERE proname IN ('protect_declared', 'keep_place', 'keep_shape', 'keep_shape_of_drops', 'keep_partitions_whole') AND NOT coalesce('jit=off' = ANY (proconfig), false)$$,
		$$ALTER FUNCTION cqrs_es.protect_declared() RESET jit$$),
	('what may run in a parallel worker neither takes positions nor looks at the log',
		$$SELECT signature FROM functions WHERE proparallel <> 'u' AND proname NOT IN ('current_tenant', 'derived_tags', 'id_from_text', 'merge_positions', 'new_event_id', 'position_here', 'proxy_functions', 'stream_hash')$$,
		$$ALTER FUNCTION cqrs_es.read_all PARALLEL RESTRICTED$$),
	('what is not volatile does not look at the log either',
		$$SELECT signature FROM functions WHERE provolatile <> 'v' AND proname NOT IN ('current_tenant', 'derived_tags', 'id_from_text', 'last_position', 'projection_errors',
			'known_settled_position', 'log_size', 'merge_positions', 'position_here', 'proxy_functions', 'stream_hash', 'sees_subscription', 'subscription_lag', 'subscription_lag_events', 'subscription_obstacle', 'subscription_seen')$$,
		$$ALTER FUNCTION cqrs_es.read_all STABLE$$),
	('every argument has a name',
		$$SELECT signature FROM functions WHERE NOT is_trigger AND pronargs > 0 AND (proargnames IS NULL OR '' = ANY (proargnames))$$,
		$$CREATE FUNCTION cqrs_es.planted(int) RETURNS int LANGUAGE sql RETURN 1$$),
	('PUBLIC may call what asks for rights on the log by itself, or needs none, and nothing else',
		$$SELECT signature FROM functions WHERE is_public <> (proname IN ('aggregate_state', 'append_event',
			'append_event_arrays', 'append_events', 'append_to_streams', 'boundary_query', 'boundary_state', 'current_tenant', 'derived_tags', 'event_types', 'execute_boundary', 'execute_command', 'home_of', 'id_from_text', 'load_aggregate', 'log_id', 'merge_positions', 'new_event_id',
			'next_position', 'poisoned_streams', 'position_here', 'routed_argument', 'routed_stream', 'stream_hash', 'read_all', 'read_matching', 'read_page', 'read_shards', 'read_stream', 'receive_message', 'reject', 'replay', 'settled_position', 'stream_version',
			'take_snapshot', 'try_append_event', 'try_append_event_arrays', 'try_append_events', 'try_execute_command', 'wait_for_position', 'wait_for_events', 'wait_until_settled', 'wait_for_projection', 'sees_subscription', 'subscription_lag', 'subscription_lag_events', 'subscription_obstacle', 'subscription_seen',
			'receive_events', 'ack_events', 'nack_event', 'extend_lease', 'release_batch'))$$,
		$$CREATE FUNCTION cqrs_es.planted() RETURNS int LANGUAGE sql RETURN 1$$),
	('nobody else was given a function, but monitors those that show how everything is',
		$$SELECT signature FROM functions, aclexplode(proacl) WHERE grantee NOT IN (0, proowner)
		AND NOT (grantee = 'pg_monitor'::regrole AND proname IN ('known_settled_position', 'last_position', 'log_size', 'projection_errors'))$$,
		$$GRANT EXECUTE ON FUNCTION cqrs_es.define_handler TO pg_monitor$$),

	-- relations
	('every table, view, sequence and type has a comment',
		$$SELECT relname FROM relations WHERE relkind <> 'i' AND
		coalesce(obj_description(oid, 'pg_class'), obj_description(reltype, 'pg_type'), '') = ''$$,
		$$CREATE TABLE cqrs_es.planted ()$$),
	('every table and sequence is marked for pg_dump: without that its data is silently lost; unless it has no columns',
		$$SELECT relname FROM relations WHERE relkind IN ('r', 'p', 'S') AND relpersistence <> 'u' AND relnatts > 0 AND oid <> ALL (
			SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'cqrs_es')$$,
		$$CREATE SEQUENCE cqrs_es.planted$$),
	('all rows of it, that is',
		$$SELECT c FROM pg_extension, unnest(extcondition) c WHERE extname = 'cqrs_es' AND c <> '' AND c !~ '^WHERE false UNION ALL[^W]* FROM .* FROM cqrs_es\.[a-z]+ AS [a-z]$'$$,
		$$UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'cqrs_es'$$),
	('nobody but the owner has a right on a relation, but to see views that show each what is theirs, or monitors how everything is, and how far retag is',
		$$SELECT relname FROM relations, aclexplode(relacl) WHERE grantee <> relowner AND NOT (privilege_type = 'SELECT' AND relkind = 'r'
			AND grantee = 'pg_monitor'::regrole AND relname = 'tag_definitions') AND NOT (privilege_type = 'SELECT' AND relkind = 'v'
			AND (relname IN ('subscription_status', 'subscription_consumers', 'subscription_dead_letters', 'subscription_parked_streams')
			OR grantee = 'pg_monitor'::regrole AND relname IN ('counters', 'followed_log_status', 'log_followers', 'log_partitions', 'log_status', 'missing_objects', 'projection_progress', 'projection_status', 'unsettled_transactions')))$$,
		$$GRANT SELECT ON cqrs_es.aggregates TO PUBLIC$$),
	('nor on a column',
		$$SELECT relname FROM relations JOIN pg_attribute ON attrelid = relations.oid WHERE attacl IS NOT NULL$$,
		$$GRANT SELECT (aggregate_type) ON cqrs_es.aggregates TO PUBLIC$$),
	('nor on the schema, but monitors to use it',
		$$SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'cqrs_es' AND grantee <> nspowner AND (grantee, privilege_type) <> ('pg_monitor'::regrole, 'USAGE')$$,
		$$GRANT USAGE ON SCHEMA cqrs_es TO PUBLIC$$),
	('all belongs to the owner of the extension',
		$$SELECT objid::text FROM pg_shdepend JOIN pg_extension ON extname = 'cqrs_es'
		WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND deptype = 'o' AND refobjid <> extowner
		AND (classid, objid) IN (SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND refobjid = pg_extension.oid)
		UNION ALL SELECT relname FROM relations JOIN pg_extension ON extname = 'cqrs_es' WHERE relowner <> extowner$$,
		$$ALTER TABLE cqrs_es.aggregates OWNER TO pg_monitor$$),
	('every table of streams is one of tenants',
		$$SELECT relname FROM relations WHERE relkind IN ('r', 'p') AND is_of_streams AND NOT has_tenant$$,
		$$CREATE TABLE cqrs_es.planted (aggregate_id text)$$),
	('row security keeps tenants apart in each such table: enabled, not forced, by our policy alone',
		$$SELECT relname FROM relations WHERE relkind IN ('r', 'p') AND has_tenant AND (NOT relrowsecurity OR relforcerowsecurity OR
			ARRAY(SELECT (polname, polcmd, polpermissive, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))::text
				FROM pg_policy WHERE polrelid = relations.oid) <>
			ARRAY[('tenant_isolation'::name, '*'::"char", true, '{0}'::oid[], '(tenant_id = cqrs_es.current_tenant())', NULL::text)::text])$$,
		$$CREATE TABLE cqrs_es.planted (tenant_id text); CREATE POLICY tenant_isolation ON cqrs_es.planted USING (tenant_id = cqrs_es.current_tenant())$$),
	('no other policy is there',
		$$SELECT relname, polname FROM pg_policy JOIN relations ON relations.oid = polrelid WHERE polname <> 'tenant_isolation' OR NOT has_tenant$$,
		$$CREATE POLICY planted ON cqrs_es.aggregates USING (true)$$),
	('every other table that has columns, but what changes with each batch or never, is a registry, which tells the sessions of INSERT, UPDATE, DELETE and TRUNCATE, in a replica too',
		$$SELECT relname FROM relations WHERE relkind IN ('r', 'p') AND NOT has_tenant AND relname NOT IN ('shares', 'consumers', 'seals', 'seal_blocks', 'event_changes', 'last_declaration', 'admitted_nodes', 'archives') AND relnatts > 0 AND NOT EXISTS (
			SELECT FROM pg_trigger WHERE tgrelid = relations.oid AND tgfoid = 'cqrs_es.registry_changed'::regproc
			AND tgenabled = 'A' AND tgtype & 1 = 0 AND tgtype & 2 = 0 AND tgtype & 60 = 60)$$,
		$$ALTER TABLE cqrs_es.handlers ENABLE TRIGGER registry_changed$$),
	('keys of type text collate bytewise',
		$$SELECT relname, attname FROM relations JOIN pg_attribute ON attrelid = relations.oid
		WHERE relkind IN ('r', 'p') AND attnum > 0 AND atttypid = 'text'::regtype
		AND attname IN (SELECT k.attname FROM pg_index JOIN pg_attribute k ON k.attrelid = indexrelid WHERE indrelid = relations.oid)
		AND attcollation <> '"C"'::regcollation$$,
		$$CREATE TABLE cqrs_es.planted (key text PRIMARY KEY)$$),
	('every unique index of a table of streams has the aggregate id and the tenant',
		$$SELECT relname FROM pg_index i JOIN relations c ON c.oid = i.indrelid WHERE i.indisunique AND is_of_streams AND i.indexrelid <> 'cqrs_es.dead_letters_pkey'::regclass
		AND 2 <> (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attname IN ('aggregate_id', 'tenant_id'))$$,
		$$CREATE UNIQUE INDEX ON cqrs_es.events (event_id)$$),
	('sequences have CACHE 1',
		$$SELECT relname FROM relations JOIN pg_sequence ON seqrelid = relations.oid WHERE seqcache <> 1$$,
		$$ALTER SEQUENCE cqrs_es.events_global_position_seq CACHE 2$$),
	('no column is an identity',
		$$SELECT relname, attname FROM pg_attribute JOIN relations ON relations.oid = attrelid WHERE attidentity <> ''$$,
		$$CREATE TABLE cqrs_es.planted (n int GENERATED ALWAYS AS IDENTITY)$$),
	('the composite type has the columns of the table',
		$$SELECT coalesce(t.attname, c.attname) FROM
			(SELECT * FROM pg_attribute WHERE attrelid = 'cqrs_es.events'::regclass AND attnum > 0) t FULL JOIN
			(SELECT * FROM pg_attribute WHERE attrelid = 'cqrs_es.event'::regclass AND attnum > 0) c USING (attnum)
		WHERE (t.attname, t.atttypid) IS DISTINCT FROM (c.attname, c.atttypid)$$,
		$$ALTER TYPE cqrs_es.event ADD ATTRIBUTE planted int$$),
	('a view shows nobody more than they may see themselves, but for those that show declarations and no events',
		$$SELECT relname FROM relations WHERE relkind IN ('v', 'm') AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)
		AND relname NOT IN ('counters', 'followed_log_status', 'log_followers', 'log_partitions', 'log_status', 'missing_objects', 'projection_progress', 'projection_status', 'unknown_event_types', 'unsettled_transactions')
		AND NOT (relname ~ '^subscription_' AND 'security_barrier=true' = ANY (reloptions) AND pg_get_viewdef(oid) ~ 'WHERE cqrs_es.sees_subscription')$$,
		$$CREATE VIEW cqrs_es.planted AS SELECT * FROM cqrs_es.events$$),

	-- names: nobody's schema has a say
	('all that is installed lies in the schema',
		$$SELECT identity FROM members WHERE schema <> 'cqrs_es'$$,
		$$CREATE FUNCTION public.planted() RETURNS int LANGUAGE sql RETURN 1; ALTER EXTENSION cqrs_es ADD FUNCTION public.planted()$$),
	('all that lies in the schema was installed',
		$$SELECT relname FROM relations WHERE relkind IN ('r', 'p', 'v', 'S', 'c') AND relname NOT IN (SELECT name FROM members WHERE schema = 'cqrs_es')
		UNION ALL SELECT signature FROM functions f WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = f.oid AND deptype = 'e')$$,
		$$CREATE FUNCTION cqrs_es.planted() RETURNS int LANGUAGE sql RETURN 1$$),
	('defaults, constraints, indexes, policies, triggers and views refer to the server''s objects and our own alone',
		$$WITH RECURSIVE parts AS (
			SELECT 'pg_class'::regclass AS classid, oid AS objid FROM relations
			UNION SELECT d.classid, d.objid FROM pg_depend d JOIN parts p ON d.refclassid = p.classid AND d.refobjid = p.objid
			WHERE d.classid IN ('pg_class'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass)
		)
		SELECT o.identity FROM pg_depend d JOIN parts USING (classid, objid), pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) o
		WHERE o.schema NOT IN ('pg_catalog', 'pg_toast', 'cqrs_es') AND d.deptype <> 'e'$$,
		$$CREATE FUNCTION public.planted() RETURNS int LANGUAGE sql RETURN 1; ALTER TABLE cqrs_es.aggregates ALTER snapshot_every SET DEFAULT public.planted()$$),
	('event triggers call our functions alone',
		$$SELECT evtname FROM pg_event_trigger WHERE starts_with(evtname, 'cqrs_es') AND evtfoid NOT IN (SELECT oid FROM functions)$$,
		$$CREATE FUNCTION public.planted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER cqrs_es_planted ON sql_drop EXECUTE FUNCTION public.planted()$$),
	('nor does anybody else fire them on tables',
		$$SELECT tgname FROM pg_trigger WHERE tgfoid IN (SELECT oid FROM functions) AND tgrelid NOT IN (SELECT oid FROM relations)$$,
		$$CREATE TABLE public.planted (); CREATE TRIGGER t AFTER INSERT ON public.planted EXECUTE FUNCTION cqrs_es.registry_changed()$$),

	-- the install script: what pgspot looks for, and what the catalog cannot tell
	('no statement makes do with an object that is there already',
		$$SELECT statement FROM statements WHERE statement ~* '\m(OR\s+REPLACE|IF\s+NOT\s+EXISTS)\M'$$,
		$$INSERT INTO statements VALUES ('CREATE OR REPLACE FUNCTION cqrs_es.f() RETURNS int LANGUAGE sql RETURN 1')$$),
	('what is created or altered is named with its schema',
		$$SELECT statement FROM statements WHERE statement ~* '^(CREATE|ALTER|COMMENT ON|GRANT|REVOKE)\M'
		AND statement !~* '^(CREATE|COMMENT ON|GRANT USAGE ON) SCHEMA cqrs_es\M' AND statement !~* '^(CREATE|COMMENT ON) EVENT TRIGGER cqrs_es_'
		AND statement !~ '^[A-Za-z ]*( [a-z_]+)?( ON)? (TABLE |FUNCTION )?cqrs_es\.' AND statement !~ '\mON\s+cqrs_es\.'$$,
		$$INSERT INTO statements VALUES ('CREATE TABLE planted (n int)')$$),
	('functions and operators are called by their full names',
		$$SELECT statement FROM statements WHERE statement ~ '^SELECT' AND statement !~ '^SELECT pg_catalog\.'
		UNION ALL SELECT statement FROM statements WHERE statement ~* '\m(DEFAULT|USING \()\s*[a-z_]+\('$$,
		$$INSERT INTO statements VALUES ('CREATE TABLE cqrs_es.planted (at timestamptz DEFAULT now())')$$),
	('every function states its volatility and whether it is safe in parallel',
		$$SELECT statement FROM statements WHERE statement ~ '^CREATE FUNCTION'
		AND (statement !~ '\m(VOLATILE|STABLE|IMMUTABLE)\M' OR statement !~ '\mPARALLEL (SAFE|RESTRICTED|UNSAFE)\M')$$,
		$$INSERT INTO statements VALUES ('CREATE FUNCTION cqrs_es.f() RETURNS int LANGUAGE sql STABLE RETURN 1')$$),
	('the script sets nothing',
		$$SELECT statement FROM statements WHERE statement ~* '^(SET|RESET)\M|set_config'$$,
		$$INSERT INTO statements VALUES ('SET search_path = public')$$);

-- The violations after a breach that is undone.
CREATE FUNCTION pg_temp.found_after(breach text, violations text) RETURNS boolean LANGUAGE plpgsql SET client_min_messages = error AS $$
DECLARE
	found boolean;
BEGIN
	EXECUTE breach;
	EXECUTE format('SELECT EXISTS (%s)', violations) INTO found;
	RAISE EXCEPTION 'undo' USING ERRCODE = 'P0042';
EXCEPTION WHEN SQLSTATE 'P0042' THEN
	RETURN found;
END $$;

SELECT plan(2 * count(*)::int + 3) FROM rules;
SELECT cmp_ok(count(*), '>', 30::bigint, 'there are functions to look at') FROM functions;
SELECT cmp_ok(count(*), '>', 15::bigint, 'there are relations to look at') FROM relations;
SELECT cmp_ok(count(*), '>', 100::bigint, 'there are statements to look at') FROM statements;
SELECT is_empty(violations, rule) FROM rules ORDER BY n;
SELECT ok(pg_temp.found_after(breach, violations), format('it would be found: %s', breach)) FROM rules ORDER BY n;
SELECT finish();
ROLLBACK;
