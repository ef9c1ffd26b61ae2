-- A database of 0.1.0 with something of everything, as its pg_dump, for 101_upgrade: of each release there is
-- one, made by its own library. What each tenant, stream and projection has is told in test/t/101_upgrade.pl.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE EXTENSION IF NOT EXISTS cqrs_es WITH SCHEMA pg_catalog;

CREATE FUNCTION public.count_event(event cqrs_es.event) RETURNS void
    LANGUAGE sql
    AS $$ update totals set n = n + 1 $$;

CREATE FUNCTION public.lift(payload jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$ select payload || '{"lifted": true}' $$;

CREATE FUNCTION public.renamed(state jsonb, event cqrs_es.event) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$ select state || jsonb_build_object('owner', event.payload->>'owner') $$;

CREATE TABLE public.accounts (
    id text NOT NULL,
    owner text,
    balance numeric
);

ALTER TABLE public.accounts OWNER TO upgrade_author;

CREATE TABLE public.late (
    id text NOT NULL,
    n bigint DEFAULT 0
);

ALTER TABLE public.late OWNER TO upgrade_author;

CREATE TABLE public.states (
    view_id text NOT NULL,
    version bigint,
    payload jsonb
);

ALTER TABLE public.states OWNER TO upgrade_author;

CREATE TABLE public.totals (
    id integer NOT NULL,
    n bigint
);

ALTER TABLE public.totals OWNER TO upgrade_author;

COPY cqrs_es.aggregates (aggregate_type, initial_state, snapshot_every, keep_snapshots, created_at) FROM stdin;
account	{"balance": 0}	3	2	2026-11-27 03:03:39.238023+00
\.

COPY cqrs_es.commands (aggregate_type, command_type, decider, definer, search_path) FROM stdin;
account	Deposit	 case when (command->>'amount')::numeric > 0 then jsonb_build_object('type', 'Deposited', 'version', '2', 'payload', command) else cqrs_es.reject('no amount', 'NO_AMOUNT') end 	upgrade_author	public, pg_temp
\.

COPY cqrs_es.events (global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata) FROM stdin;
1	1	2026-11-27 03:03:39.691004+00	01a21af5-65aa-7be4-9f65-7fd22b18383e		account	a-1	Opened	1	{"owner": "o1"}	{}
2	1	2026-11-27 03:03:39.726986+00	01a21af5-65ce-7fa6-9c92-c05e08633a1b		account	a-2	Opened	1	{"owner": "o2"}	{}
3	1	2026-11-27 03:03:39.727114+00	01a21af5-65cf-71cb-bc2e-eed823f1e39e		account	a-3	Opened	1	{"owner": "o3"}	{}
4	2	2026-11-27 03:03:39.806062+00	01a21af5-661e-70e9-b5f7-007db337da93		account	a-1	Deposited	2	{"amount": 1}	{"command_id": "00000000-0000-7000-8000-000000000001", "causation_id": "00000000-0000-7000-8000-000000000001", "correlation_id": "00000000-0000-7000-8000-000000000001"}
5	3	2026-11-27 03:03:39.806842+00	01a21af5-661e-7d6d-8d3a-fa10c20a335c		account	a-1	Deposited	2	{"amount": 2}	{"command_id": "00000000-0000-7000-8000-000000000002", "causation_id": "00000000-0000-7000-8000-000000000002", "correlation_id": "00000000-0000-7000-8000-000000000002"}
6	4	2026-11-27 03:03:39.807624+00	01a21af5-661f-79ee-8512-0a63daeae19c		account	a-1	Deposited	2	{"amount": 3}	{"command_id": "00000000-0000-7000-8000-000000000003", "causation_id": "00000000-0000-7000-8000-000000000003", "correlation_id": "00000000-0000-7000-8000-000000000003"}
7	5	2026-11-27 03:03:39.80781+00	01a21af5-661f-7cea-b959-d3a970a1721c		account	a-1	Deposited	2	{"amount": 4}	{"command_id": "00000000-0000-7000-8000-000000000004", "causation_id": "00000000-0000-7000-8000-000000000004", "correlation_id": "00000000-0000-7000-8000-000000000004"}
8	2	2026-11-27 03:03:39.859314+00	00000000-0000-7000-8000-0000000000aa		account	a-2	Renamed	1	{"owner": "other"}	{}
9	1	2026-11-27 03:03:39.945257+00	01a21af5-66a9-73c7-b3f7-cb5b17dd3d02		note	n/1 'q	Noted	1	{"text": "ü"}	{"user": "u"}
10	1	2026-11-27 03:03:40.005094+00	01a21af5-66e5-713a-af8e-3eb573198aeb	acme	note	n-1	Noted	1	{"text": "acme"}	{}
\.

COPY cqrs_es.handlers (projection, event_type, statement, function, definer, search_path) FROM stdin;
accounts	Opened	insert into accounts values (event.aggregate_id, event.payload->>'owner', 0)	\N	upgrade_author	public, pg_temp
accounts	Deposited	update accounts set balance = balance + (event.payload->>'amount')::numeric where id = event.aggregate_id	\N	upgrade_author	public, pg_temp
totals	*	\N	public.count_event(cqrs_es.event)	upgrade_author	public, pg_temp
late	*	insert into late values (event.aggregate_id, 1) on conflict (id) do update set n = late.n + 1	\N	upgrade_author	public, pg_temp
\.

COPY cqrs_es.projections (name, aggregate_types, read_models, owner, state_of, paused, handled_position, handled_gaps, created_at) FROM stdin;
accounts	{account}	{public.accounts}	upgrade_author	\N	f	\N	\N	2026-11-27 03:03:39.391487+00
totals	\N	{public.totals}	upgrade_author	\N	f	\N	\N	2026-11-27 03:03:39.487992+00
states	{account}	{public.states}	upgrade_author	account	f	\N	\N	2026-11-27 03:03:39.548222+00
late	{account}	{public.late}	upgrade_author	\N	t	7	\N	2026-11-27 03:03:39.596473+00
\.

COPY cqrs_es.reducers (aggregate_type, event_type, function, search_path, operations) FROM stdin;
account	Deposited	\N	public, pg_temp	[{"op": "increment", "from": "/amount", "path": "/balance"}]
account	Renamed	public.renamed(pg_catalog.jsonb,cqrs_es.event)	public, pg_temp	\N
\.

COPY cqrs_es.snapshots (aggregate_type, aggregate_id, tenant_id, last_sequence, current_snapshot, payload, fingerprint, created_at) FROM stdin;
account	a-1		3	1	{"owner": "o1", "balance": 3}	\\xddd2d9f3ae00f4816104825c00fde66e67c45f25adcbf9d69997df62801c413c	2026-11-27 03:03:39.807321+00
\.

COPY cqrs_es.upcasters (event_type, from_version, to_version, function, search_path) FROM stdin;
Deposited	1	2	public.lift(pg_catalog.jsonb)	public, pg_temp
\.

COPY public.accounts (id, owner, balance) FROM stdin;
a-2	o2	0
a-3	o3	0
a-1	o1	10
\.

COPY public.late (id, n) FROM stdin;
a-2	1
a-3	1
a-1	5
\.

COPY public.states (view_id, version, payload) FROM stdin;
a-3	1	{"owner": "o3", "balance": 0}
a-1	5	{"owner": "o1", "balance": 10}
a-2	2	{"owner": "other", "balance": 0}
\.

COPY public.totals (id, n) FROM stdin;
1	10
\.

SELECT pg_catalog.setval('cqrs_es.events_global_position_seq', 10, true);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.late
    ADD CONSTRAINT late_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.states
    ADD CONSTRAINT states_pkey PRIMARY KEY (view_id);

ALTER TABLE ONLY public.totals
    ADD CONSTRAINT totals_pkey PRIMARY KEY (id);

GRANT USAGE ON SCHEMA cqrs_es TO upgrade_author;
GRANT USAGE ON SCHEMA cqrs_es TO upgrade_writer;
GRANT USAGE ON SCHEMA cqrs_es TO upgrade_reader;

GRANT CREATE ON SCHEMA public TO upgrade_author;

REVOKE ALL ON FUNCTION cqrs_es.append_event(aggregate_type text, aggregate_id text, event_type text, payload jsonb, expected_version bigint, metadata jsonb, event_id uuid, event_version text) FROM PUBLIC;
GRANT ALL ON FUNCTION cqrs_es.append_event(aggregate_type text, aggregate_id text, event_type text, payload jsonb, expected_version bigint, metadata jsonb, event_id uuid, event_version text) TO upgrade_writer;

REVOKE ALL ON FUNCTION cqrs_es.append_events(aggregate_type text, aggregate_id text, events jsonb, expected_version bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION cqrs_es.append_events(aggregate_type text, aggregate_id text, events jsonb, expected_version bigint) TO upgrade_writer;

GRANT ALL ON FUNCTION cqrs_es.create_aggregate(aggregate_type text, initial_state jsonb, snapshot_every integer, keep_snapshots integer) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.create_projection(name text, aggregate_types text[], read_models regclass[], state_of text, backfill boolean) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.define_command(aggregate_type text, command_type text, decider text) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.define_handler(projection text, event_type text, handler text) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, function regprocedure) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, reducer text) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.define_upcaster(event_type text, from_version text, to_version text, function regprocedure) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.pause_projection(name text) TO upgrade_author;

GRANT ALL ON FUNCTION cqrs_es.rebuild_projection(name text) TO upgrade_author WITH GRANT OPTION;

GRANT SELECT,INSERT ON TABLE cqrs_es.events TO upgrade_author;
GRANT SELECT,INSERT ON TABLE cqrs_es.events TO upgrade_writer;

GRANT USAGE ON SEQUENCE cqrs_es.events_global_position_seq TO upgrade_reader;

GRANT SELECT(name) ON TABLE cqrs_es.projections TO upgrade_reader;

GRANT SELECT(paused) ON TABLE cqrs_es.projections TO upgrade_reader;

GRANT SELECT(projection) ON TABLE cqrs_es.projection_progress TO upgrade_reader;

GRANT SELECT(events) ON TABLE cqrs_es.projection_progress TO upgrade_reader;

GRANT SELECT ON TABLE cqrs_es.projection_status TO upgrade_reader;

