-- The end of a file that has added to the log (an index, say) outside of a
-- transaction: that made the log one of its own, and other files want it as it was
-- installed. It and its events go.
DROP EXTENSION cqrs_es CASCADE;
CREATE EXTENSION cqrs_es;
