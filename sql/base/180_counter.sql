-- 180_counter: what is counted for monitors.  Tables without rows, of which the server
-- keeps statistics: see src/base/counter.c

CREATE TABLE cqrs_es.cache_counts ();
COMMENT ON TABLE cqrs_es.cache_counts IS
    'internal, without rows: its statistics count how often a session threw away what it had read of declarations; see counters';
