-- Leaves the database that test/include/example.sql made, and drops it.
\connect :home
DROP DATABASE :database;
