-- 790_unknown_event_type: what is in the log and nobody knows

CREATE VIEW cqrs_es.unknown_event_types AS
    SELECT t.aggregate_type,
           t.event_type,
           EXISTS (SELECT FROM cqrs_es.aggregates AS a
                   WHERE a.aggregate_type OPERATOR(pg_catalog.=) t.aggregate_type) AS declared,
           t.events,
           t.first_position,
           t.last_position
    FROM cqrs_es.event_types() AS t
    -- those that the extension appends begin with a dollar sign
    WHERE pg_catalog.left(t.event_type, 1) OPERATOR(pg_catalog.<>) '$'
      AND NOT EXISTS (SELECT FROM cqrs_es.reducers AS r
            WHERE r.aggregate_type OPERATOR(pg_catalog.=) t.aggregate_type
              AND r.event_type OPERATOR(pg_catalog.=) t.event_type)
      AND NOT EXISTS (SELECT FROM cqrs_es.reducers AS r
            JOIN cqrs_es.boundaries AS b ON b.boundary OPERATOR(pg_catalog.=) r.aggregate_type
            WHERE r.event_type OPERATOR(pg_catalog.=) t.event_type)
      AND NOT EXISTS (SELECT FROM cqrs_es.handlers AS h
            JOIN cqrs_es.projections AS p ON p.name OPERATOR(pg_catalog.=) h.projection
            WHERE h.event_type OPERATOR(pg_catalog.=) t.event_type
              AND (p.aggregate_types IS NULL
                   OR t.aggregate_type OPERATOR(pg_catalog.=) ANY (p.aggregate_types)));
COMMENT ON VIEW cqrs_es.unknown_event_types IS
    'event types in the log of the current tenant that no reducer knows and no handler of their own: new ones, or mistyped';
