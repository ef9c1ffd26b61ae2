-- 190_admitted_node: a node of a distributed log that knows what is declared: see
-- src/base/distribution.c

CREATE TABLE cqrs_es.admitted_nodes (node_id integer PRIMARY KEY);
COMMENT ON TABLE cqrs_es.admitted_nodes IS
    'the number of this node, where it knows what is declared on all nodes of the distributed log';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.admitted_nodes', '');
