-- The sequence is the column's default, as a file cannot hold it: see copy_rows.sql.
\set file random(0, 63)
COPY bench.events (aggregate_type, aggregate_id, event_type, payload) FROM ':files/:file';
