-- 517_forget_subject: what was encrypted about somebody can be read by nobody any more

CREATE FUNCTION cqrs_es.forget_subject(subject text, reason text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_forget_subject';
COMMENT ON FUNCTION cqrs_es.forget_subject(text, text) IS
    'drops the keys of a subject, so that its personal data are null in all copies of the log; appends $redacted to each stream concerned, and lets follow what held a copy; returns in how many events something is gone';
REVOKE EXECUTE ON FUNCTION cqrs_es.forget_subject(text, text) FROM PUBLIC;
