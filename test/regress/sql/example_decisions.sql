\set example decisions
\getenv sources PG_ABS_SRCDIR
\set printed :sources /printed.sql
\i :printed
