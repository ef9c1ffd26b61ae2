-- What is told of a long replay while it runs, and of one in portions when it ends, or ends early.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS cqrs_es CASCADE;
CREATE EXTENSION cqrs_es;
CREATE TABLE pr_table (id text);
CREATE FUNCTION pr_append(n integer) RETURNS bigint LANGUAGE sql AS
	$$SELECT version FROM cqrs_es.append_events('pr', '1', (SELECT jsonb_agg('{"type": "e", "payload": {}}'::jsonb) FROM generate_series(1, n)))$$;
SELECT cqrs_es.create_projection('pr', read_models => '{pr_table}');
SELECT cqrs_es.define_handler('pr', 'e', 'INSERT INTO pr_table VALUES (event.aggregate_id)');
SET client_min_messages = notice;

-- a notice says how far it is, also the first
SELECT pr_append(1000);
SELECT cqrs_es.rebuild_projection('pr');
SELECT pr_append(1000);
SELECT cqrs_es.rebuild_projection('pr');
SELECT pr_append(2000);
SELECT cqrs_es.rebuild_projection('pr');

-- between two portions somebody has dropped the projection, or made it anew
CREATE FUNCTION pr_drop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM cqrs_es.projections WHERE handled_position > 0) THEN
		RETURN NULL;
	END IF;
	PERFORM cqrs_es.drop_projection('pr', if_exists => true);
	IF TG_ARGV[0] = 'anew' THEN
		PERFORM cqrs_es.create_projection('pr', read_models => '{pr_table}', backfill => true),
			cqrs_es.define_handler('pr', 'e', 'UPDATE pr_table SET id = (1 / (event.sequence - event.sequence))::text');
	END IF;
	RETURN NULL;
END $$;
SET client_min_messages = warning;
CREATE CONSTRAINT TRIGGER pr_drop AFTER INSERT ON pr_table DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pr_drop();
CALL cqrs_es.rebuild_in_portions('pr', 1500);
SELECT cqrs_es.create_projection('pr', read_models => '{pr_table}');
SELECT cqrs_es.define_handler('pr', 'e', 'INSERT INTO pr_table VALUES (event.aggregate_id)');
DROP TRIGGER pr_drop ON pr_table;
CREATE CONSTRAINT TRIGGER pr_drop AFTER INSERT ON pr_table DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pr_drop('anew');
CALL cqrs_es.rebuild_in_portions('pr', 1500);
-- nothing of that kind: it is paused
SELECT cqrs_es.drop_projection('pr');
DROP TRIGGER pr_drop ON pr_table;
SELECT cqrs_es.create_projection('pr', read_models => '{pr_table}');
SELECT cqrs_es.define_handler('pr', 'e', 'INSERT INTO pr_table VALUES (1 / (event.sequence - 2000))');
CALL cqrs_es.rebuild_in_portions('pr', 1500);

-- at its end, which handlers found no row to change in any of its portions
SELECT cqrs_es.define_handler('pr', 'e', 'UPDATE pr_table SET id = event.aggregate_id');
CALL cqrs_es.rebuild_in_portions('pr', 1500);
CALL cqrs_es.rebuild_in_portions('pr', 1500);
SELECT cqrs_es.drop_projection('pr');
DROP TABLE pr_table;
DROP FUNCTION pr_drop, pr_append;
