\if :ready = 0
SELECT events FROM bench.batch \gset
\set ready 1
\endif
\set stream random(1, 10000)
SELECT * FROM cqrs_es.append_events('account', :stream, :events);
