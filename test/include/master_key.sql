-- A master key, in a file of the server that nobody else may read.
COPY (SELECT md5('master') || md5('key')) TO PROGRAM 'umask 077; cat > cqrs_es_master_key';
SELECT set_config('cqrs_es.master_key_file', current_setting('data_directory') || '/cqrs_es_master_key', false) IS NULL AS key_file \gset
