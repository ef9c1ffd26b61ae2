\set ECHO none
-- What one of the examples prints for a newcomer: psql reads it into a new and
-- empty database of its own.
--
--	\set example todo
--	\i :printed
--
-- With < and not -f psql puts no line numbers before errors.
\set database contrib_regression_ :example
SET client_min_messages = warning;
DROP DATABASE IF EXISTS :database;
CREATE DATABASE :database TEMPLATE template0;
ALTER DATABASE :database SET lc_messages = 'C';
\setenv EXAMPLE :example
\setenv DATABASE :database
\! psql -X -d "$DATABASE" < "$PG_ABS_SRCDIR/../../examples/$EXAMPLE.sql" 2>&1
DROP DATABASE :database;
