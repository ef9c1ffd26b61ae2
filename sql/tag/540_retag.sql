-- 540_retag: tags for the events that were there before they were defined

CREATE PROCEDURE cqrs_es.retag(event_type text DEFAULT NULL, portion integer DEFAULT 1000)
    LANGUAGE C
    AS 'MODULE_PATHNAME', 'cqrs_es_retag';
COMMENT ON PROCEDURE cqrs_es.retag(text, integer) IS
    'gives the tags of define_tags to the events of a type that were there before, or of all types that lack some, beside writers; commits after each portion of so many events. What was interrupted goes on when it is called again';
REVOKE EXECUTE ON PROCEDURE cqrs_es.retag(text, integer) FROM PUBLIC;
