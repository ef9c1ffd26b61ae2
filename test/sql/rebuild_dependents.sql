\i test/include/setup.sql
-- A rebuild empties the read models of its projection, and nothing else: where the DELETE would reach rows of other
-- tables, it is refused and says which.

BEGIN;
SELECT plan(34);
CREATE SCHEMA rd;
SET LOCAL search_path = rd, public;
CREATE FUNCTION rd.make(name text, type text DEFAULT 'rd', tables regclass[] DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.create_projection(name, ARRAY[type], coalesce(tables, ARRAY[name::regclass]));
	SELECT cqrs_es.define_handler(name, 'made', format('INSERT INTO %I (id) VALUES (event.aggregate_id)', (coalesce(tables, ARRAY[name::regclass]))[1]));
$$;
CREATE FUNCTION rd.refusal(name text) RETURNS text[] LANGUAGE sql AS
	$$SELECT pg_temp.error_of(format('SELECT cqrs_es.rebuild_projection(%L)', name), '{state,message,detail}')$$;
CREATE FUNCTION rd.refused(name text, detail text) RETURNS text[] LANGUAGE sql AS
	$$SELECT ARRAY['55000', format('projection "%s" cannot be rebuilt: it would change more than its read models', name), detail]$$;
SELECT version FROM cqrs_es.append_event('rd', '1', 'made', '{}') \gset

-- foreign keys
CREATE TABLE rd.customers (id text PRIMARY KEY);
CREATE TABLE rd.invoices (customer text REFERENCES rd.customers ON DELETE CASCADE);
INSERT INTO rd.customers VALUES ('1');
INSERT INTO rd.invoices VALUES ('1');
SELECT rd.make('customers') IS NULL AS x \gset
SELECT is(rd.refusal('customers'), rd.refused('customers', 'Foreign key "invoices_customer_fkey" of table rd.invoices would delete its rows (ON DELETE CASCADE).'), 'ON DELETE CASCADE');
SELECT is((SELECT count(*) FROM rd.invoices), 1::bigint, 'nothing is lost');
SELECT cqrs_es.pause_projection('customers') IS NULL AS x \gset
SELECT is((rd.refusal('customers'))[1], '55000', 'of a paused projection, too');
SELECT cqrs_es.resume_projection('customers') IS NULL AS x \gset
TRUNCATE rd.invoices;
SELECT is((rd.refusal('customers'))[1], '55000', 'also while there is no row: it says the same each time');
ALTER TABLE rd.invoices DROP CONSTRAINT invoices_customer_fkey,
	ADD CONSTRAINT by_null FOREIGN KEY (customer) REFERENCES rd.customers ON DELETE SET NULL;
SELECT is((rd.refusal('customers'))[3], 'Foreign key "by_null" of table rd.invoices would change its rows (ON DELETE SET NULL).', 'ON DELETE SET NULL');
ALTER TABLE rd.invoices DROP CONSTRAINT by_null,
	ADD CONSTRAINT by_default FOREIGN KEY (customer) REFERENCES rd.customers ON DELETE SET DEFAULT;
SELECT is((rd.refusal('customers'))[3], 'Foreign key "by_default" of table rd.invoices would change its rows (ON DELETE SET DEFAULT).', 'ON DELETE SET DEFAULT');
ALTER TABLE rd.invoices DROP CONSTRAINT by_default,
	ADD CONSTRAINT none FOREIGN KEY (customer) REFERENCES rd.customers DEFERRABLE INITIALLY DEFERRED;
INSERT INTO rd.invoices VALUES ('1');
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('customers'); SET CONSTRAINTS ALL IMMEDIATE$$, 'one that takes no action, when the rows are there again');
SELECT is((SELECT count(*) FROM rd.invoices), 1::bigint, 'nothing is lost then either');

-- several at once are all named
CREATE TABLE rd.notes (customer text REFERENCES rd.customers ON DELETE CASCADE);
CREATE TABLE rd.calls (customer text REFERENCES rd.customers ON DELETE CASCADE);
SELECT is((rd.refusal('customers'))[3],
	E'Foreign key "calls_customer_fkey" of table rd.calls would delete its rows (ON DELETE CASCADE).\nForeign key "notes_customer_fkey" of table rd.notes would delete its rows (ON DELETE CASCADE).',
	'all are named');
DROP TABLE rd.calls;
INSERT INTO rd.notes VALUES ('1');
ALTER TABLE rd.customers DISABLE TRIGGER ALL;
SELECT is(rd.refusal('customers'), NULL, 'a foreign key that is disabled changes nothing');
SELECT is((SELECT count(*) FROM rd.notes), 1::bigint, 'nothing is lost');
ALTER TABLE rd.customers ENABLE TRIGGER ALL;
DROP TABLE rd.notes;

-- among read models of one projection, and behind them
CREATE TABLE rd.orders (id text PRIMARY KEY, parent text REFERENCES rd.orders ON DELETE CASCADE);
CREATE TABLE rd.lines (id text PRIMARY KEY, "order" text REFERENCES rd.orders ON DELETE CASCADE);
SELECT rd.make('orders', 'rd', '{orders,lines}') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('orders')$$, 'tables of the same projection, and a table that refers to itself');
CREATE TABLE rd.remarks (id text, line text REFERENCES rd.lines ON DELETE CASCADE);
SELECT is((rd.refusal('orders'))[3], 'Foreign key "remarks_line_fkey" of table rd.remarks would delete its rows (ON DELETE CASCADE).', 'behind the second table');
SELECT rd.make('remarks', 'other', '{remarks}') IS NULL AS x \gset
SELECT is((rd.refusal('orders'))[3], 'Foreign key "remarks_line_fkey" of table rd.remarks would delete its rows (ON DELETE CASCADE).', 'a read model of another projection');

-- partitions
CREATE TABLE rd.places (id text PRIMARY KEY) PARTITION BY LIST (id);
CREATE TABLE rd.places_1 PARTITION OF rd.places FOR VALUES IN ('1');
CREATE TABLE rd.places_rest PARTITION OF rd.places DEFAULT;
SELECT rd.make('places') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('places')$$, 'a partitioned table');
CREATE TABLE rd.visits (place text REFERENCES rd.places ON DELETE CASCADE) PARTITION BY LIST (place);
CREATE TABLE rd.visits_1 PARTITION OF rd.visits FOR VALUES IN ('1');
SELECT is((rd.refusal('places'))[3], 'Foreign key "visits_place_fkey" of table rd.visits would delete its rows (ON DELETE CASCADE).', 'a partitioned table that refers to it, named once');
DROP TABLE rd.visits;
CREATE TABLE rd.visits (place text REFERENCES rd.places_1 ON DELETE CASCADE);
SELECT is((rd.refusal('places'))[3], 'Foreign key "visits_place_fkey" of table rd.visits would delete its rows (ON DELETE CASCADE).', 'one that refers to a partition');
DROP TABLE rd.visits;
SET LOCAL client_min_messages = error; -- declaring it warns already
SELECT rd.make('part', 'other', '{places_1}') IS NULL AS x \gset
SET LOCAL client_min_messages = warning;
SELECT is((rd.refusal('places'))[3], 'Projection "part" keeps table rd.places_1, too.', 'a partition that another projection keeps');
SELECT is((rd.refusal('part'))[3], 'Projection "places" keeps table rd.places_1, too.', 'and the other way round');
SELECT cqrs_es.drop_projection('part') IS NULL AS x \gset

-- inheritance
CREATE TABLE rd.base (id text);
CREATE TABLE rd.child (more text) INHERITS (rd.base);
INSERT INTO rd.child VALUES ('2', 'precious');
SELECT rd.make('base') IS NULL AS x \gset
SELECT is((rd.refusal('base'))[3], 'Table rd.child inherits from rd.base: its rows would be deleted with those.', 'a table that inherits');
SELECT is((SELECT count(*) FROM rd.child), 1::bigint, 'keeps its rows');
SELECT rd.make('child') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('child')$$, 'that is a read model itself');
SELECT is((rd.refusal('base'))[3], 'Projection "child" keeps table rd.child, too.', 'of another projection');
SELECT cqrs_es.drop_projection('base') IS NULL AS x, cqrs_es.drop_projection('child') IS NULL AS y \gset
SELECT rd.make('base', 'rd', '{base,child}') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('base')$$, 'or of the same one');

-- rules
CREATE TABLE rd.ruled (id text);
CREATE TABLE rd.archive (id text);
CREATE RULE away AS ON DELETE TO rd.ruled DO ALSO DELETE FROM rd.archive;
SELECT rd.make('ruled') IS NULL AS x \gset
SELECT is((rd.refusal('ruled'))[3], 'Rule "away" of table rd.ruled says what else happens on DELETE.', 'a rule');
ALTER TABLE rd.ruled DISABLE RULE away;
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('ruled')$$, 'that is disabled');
CREATE RULE never AS ON DELETE TO rd.ruled DO INSTEAD NOTHING;
SELECT is((rd.refusal('ruled'))[3], 'Rule "never" of table rd.ruled says what else happens on DELETE.', 'one that keeps the rows');
DROP RULE never ON rd.ruled;
CREATE RULE inserted AS ON INSERT TO rd.ruled DO ALSO NOTHING;
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('ruled')$$, 'one that is not for DELETE');

-- triggers
CREATE TABLE rd.watched (id text);
CREATE FUNCTION rd.watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM rd.archive; RETURN NULL; END';
CREATE TRIGGER on_row AFTER DELETE ON rd.watched FOR EACH ROW EXECUTE FUNCTION rd.watch();
SELECT rd.make('watched') IS NULL AS x \gset
SELECT is((rd.refusal('watched'))[3], 'Trigger "on_row" of table rd.watched would run on DELETE.', 'a row trigger');
ALTER TABLE rd.watched DISABLE TRIGGER on_row;
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('watched')$$, 'that is disabled');
CREATE TRIGGER on_statement BEFORE INSERT OR DELETE ON rd.watched EXECUTE FUNCTION rd.watch();
SELECT is((rd.refusal('watched'))[3], 'Trigger "on_statement" of table rd.watched would run on DELETE.', 'a statement trigger');
DROP TRIGGER on_statement ON rd.watched;
CREATE TRIGGER on_insert AFTER INSERT OR UPDATE ON rd.watched EXECUTE FUNCTION rd.watch();
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('watched')$$, 'one that is not for DELETE');
CREATE TRIGGER on_part AFTER DELETE ON rd.places_1 FOR EACH ROW EXECUTE FUNCTION rd.watch();
SELECT is((rd.refusal('places'))[3], 'Trigger "on_part" of table rd.places_1 would run on DELETE.', 'a trigger of a partition');
DROP TRIGGER on_part ON rd.places_1;
CREATE TRIGGER on_all AFTER DELETE ON rd.places FOR EACH ROW EXECUTE FUNCTION rd.watch();
SELECT is((rd.refusal('places'))[3], 'Trigger "on_all" of table rd.places would run on DELETE.', 'a trigger of the partitioned table, named once');

SELECT * FROM finish();
ROLLBACK;
