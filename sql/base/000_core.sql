-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION cqrs_es" to load this file. \quit

-- 000_core: the schema.  Created here and not by the control file, so that
-- nobody can have prepared it before.
CREATE SCHEMA cqrs_es;
COMMENT ON SCHEMA cqrs_es IS 'event log, aggregates and projections';
