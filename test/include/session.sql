-- What psql says to :statements in a session of its own: its rows, the SQLSTATEs
-- of its errors. For those that come at commit or with it, where no assertion can
-- catch them.
--
--	\set statements 'SELECT ...; ...'
--	\i test/include/session.sql
--	SELECT is(:'answer'::text, ...);
\setenv STATEMENTS :statements
\setenv DATABASE :DBNAME
\set answer `printf '%s' "$STATEMENTS" | PGOPTIONS="$PGOPTIONS -c client_min_messages=error" psql -X -q -A -t -v VERBOSITY=sqlstate -d "$DATABASE" 2>&1`
