"""cqrs_es from Python, with psycopg 3.  Declared by account.sql; the database is
where the environment says (PGHOST, PGDATABASE, ...).  account.js does the same."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb, set_json_loads
from psycopg_pool import ConnectionPool

# Money comes out of a state as it is in there, not as the nearest float.
set_json_loads(lambda text: json.loads(text, parse_float=Decimal))


# Commands that the database decides.  A rejection is an answer, not an accident:
# it carries the message and the code that the decider gave to reject().

class Rejected(Exception):
    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


def execute(connection, account, command, payload, command_id=None):
    try:
        return connection.execute(
            """SELECT version, state FROM cqrs_es.execute_command(
                   'account', %s, %s, %s, command_id => %s)""",
            (account, command, Jsonb(payload), command_id or uuid4()), prepare=True).fetchone()
    except psycopg.Error as e:
        if e.sqlstate == "QE301":
            raise Rejected(e.diag.message_primary, e.diag.constraint_name) from e
        raise


# A transaction that is done again when somebody was quicker.  What failed has ended
# it, so it is done again as a whole, with whatever belongs to it.

def retry(connection, work, tries=10):
    for tries_left in reversed(range(tries)):
        try:
            with connection.transaction():
                return work(connection)
        except psycopg.Error as e:
            if e.sqlstate not in ("QE001", "40001", "40P01") or tries_left == 0:
                raise


# Decisions that are made here: load, decide, append with the version that was
# loaded.  When no answer came, call it again with the same event_id.

def update(connection, account, decide, event_id=None):
    event_id = event_id or uuid4()

    def work(connection):
        version, state = connection.execute(
            "SELECT version, state FROM cqrs_es.load_aggregate('account', %s)", (account,)).fetchone()
        event_type, payload = decide(state)
        return connection.execute(
            "SELECT version FROM cqrs_es.append_event('account', %s, %s, %s, %s, event_id => %s)",
            (account, event_type, Jsonb(payload), version, event_id)).fetchone()[0]

    return retry(connection, work)


# A worker that reads the log, one page at a time.  The cursor moves with the page,
# in one transaction; the last row says how far, also when it has no event.

def work(connection, reader, event_types, handle):
    with connection.transaction():
        (position,) = connection.execute(
            "SELECT position FROM cursors WHERE reader = %s FOR UPDATE", (reader,)).fetchone()
        rows = connection.execute(
            """SELECT event_id, event_type, aggregate_id, payload, read_to
               FROM cqrs_es.read_page(%s, 100, event_types => %s)""", (position, event_types)).fetchall()
        for event_id, event_type, account, payload, read_to in rows:
            if event_id is not None:
                handle(event_id, event_type, account, payload)
        connection.execute("UPDATE cursors SET position = %s WHERE reader = %s", (read_to, reader))
    return event_id is not None


def main(pool):
    # A command sent twice with one command_id happens once.
    with pool.connection() as connection:
        command_id = uuid4()
        for _ in range(2):
            version, state = execute(connection, "a1", "Open", {"owner": "Ada"}, command_id)
            print(f"opened: version {version}, owner {state['owner']}, balance {state['balance']}")
        for amount in 0.1, 0.2:
            version, state = execute(connection, "a1", "Deposit", {"amount": amount})
            print(f"deposited {amount}: version {version}, balance {state['balance']}, next is version {version + 1}")
        prepared = connection.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%execute_command%'").fetchone()[0]
        print(f"prepared statements: {prepared}")

    with pool.connection() as connection:
        for command, payload in ("Withdraw", {"amount": 1000}), ("Open", {"owner": "Mallory"}):
            try:
                execute(connection, "a1", command, payload)
            except Rejected as e:
                print(f"rejected: {e}, code {e.code}")

        # All that QE001 says.
        try:
            connection.execute("SELECT cqrs_es.append_event('account', 'a1', 'Renamed', '{}', expected_version => 2)")
        except psycopg.Error as e:
            print(f"conflict {e.sqlstate}: {e.diag.schema_name}/{e.diag.table_name}"
                  f" expected {int(e.diag.column_name)}, actual {int(e.diag.datatype_name)}")

        # Somebody is quicker, once.
        owners = []

        def rename(state):
            owners.append(state["owner"])
            if len(owners) == 1:
                with pool.connection() as other:
                    update(other, "a1", lambda state: ("Renamed", {"owner": "Augusta"}))
            return "Renamed", {"owner": state["owner"] + " King"}

        version = update(connection, "a1", rename)
        print(f"decided for {', then for '.join(owners)}: version {version}")

        # Many events at once.
        version = connection.execute(
            "SELECT version FROM cqrs_es.append_events('account', %s, %s, expected_version => %s)",
            ("a1", Jsonb([{"type": "Deposited", "payload": {"amount": 10}},
                          {"type": "Withdrawn", "payload": {"amount": 3}, "metadata": {"atm": "A7"}}]), version)).fetchone()[0]
        print(f"appended an array of JSON: version {version}")
        version = connection.execute(
            "SELECT version FROM cqrs_es.append_event_arrays('account', %s, %s, %s, expected_version => %s)",
            ("a1", ["Deposited", "Withdrawn"], [Jsonb({"amount": 20}), Jsonb({"amount": 2})], version)).fetchone()[0]
        print(f"appended arrays: version {version}")

        # What every event of a transaction carries, and none after it.
        with connection.transaction():
            connection.execute("SELECT set_config('cqrs_es.context', %s, true)", (json.dumps({"user": "ada"}),))
            connection.execute("SELECT cqrs_es.append_event('account', 'a1', 'Reviewed', '{}')")
        connection.execute("SELECT cqrs_es.append_event('account', 'a1', 'Reviewed', '{}')")
        for sequence, metadata in connection.execute(
                "SELECT sequence, metadata FROM cqrs_es.read_stream('account', %s, from_sequence => %s)", ("a1", version + 1)):
            print(f"event {sequence}: metadata {json.dumps(metadata)}")

    # Many at a time over few connections: a lost race is decided again in the server.
    def deposit(_):
        with pool.connection() as connection:
            return execute(connection, "a1", "Deposit", {"amount": 0.01})[0]

    with ThreadPoolExecutor(10) as threads:
        versions = list(threads.map(deposit, range(100)))
    print(f"100 deposits at once: versions {min(versions)} to {max(versions)}, {len(set(versions))} different ones")

    with pool.connection() as connection:
        state = connection.execute("SELECT cqrs_es.aggregate_state('account', %s)", ("a1",)).fetchone()[0]
        print(f"state: owner {state['owner']}, balance {state['balance']}")
        state = connection.execute("SELECT cqrs_es.aggregate_state('account', %s)", ("none",)).fetchone()[0]
        print("no such account" if state is None else state)

    # Two workers share a cursor.
    mails = []

    def mail(_):
        with pool.connection() as connection:
            while work(connection, "mails", ["Deposited", "Closed"], lambda *event: mails.append(event)):
                pass

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(mail, range(2)))
    print(f"mails of two workers: {len(mails)}")


with ConnectionPool("", min_size=1, max_size=4, kwargs={"autocommit": True}) as pool:
    main(pool)
