"""subscribe_latency.py WAY RATE SECONDS DIRECTORY [CLIENTS]: how long after the answer to its
COMMIT an event is in the hand of a consumer, while CLIENTS (4) of pgbench append RATE events per
second.  Prints the milliseconds of half of the events, of 99 %, and of half of the
appends themselves, how many were appended, and how many of them never came.  WAY: subscription, cursor, listen, poll;
relaxed is a subscription whose consumer has synchronous_commit = off; naive goes by the
highest position in the table that it has seen."""

import glob, os, select, subprocess, sys, time
from uuid import uuid4

import psycopg

way, rate, seconds, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
kind = "latency-" + uuid4().hex
appenders = int(sys.argv[5]) if len(sys.argv) > 5 else 4
received = []
connection = psycopg.connect(autocommit=True)
listener = psycopg.connect(autocommit=True)
position = connection.execute("SELECT cqrs_es.settled_position()").fetchone()[0]
batch = None
if way == "relaxed":
    connection.execute("SET synchronous_commit = off")
    way = "subscription"
if way == "listen":
    listener.execute("LISTEN events")


def receive():
    """What has come, as one row, to be taken apart at the end: a client in Python would else be what is measured."""
    global position, batch
    if way == "subscription":
        source, argument, last = "cqrs_es.receive_events('latency', 'bench', 1000, ack => %s)", batch, "max(batch)"
    elif way == "naive":
        source, argument, last = ("(SELECT * FROM cqrs_es.events WHERE global_position > %s ORDER BY global_position LIMIT 1000) AS e",
                                  position, "max(global_position)")
    else:
        source, argument, last = "cqrs_es.read_all(%s, 1000)", position, "max(global_position)"
    events, last = connection.execute(f"SELECT string_agg(aggregate_id || ' ' || sequence, ',') FILTER (WHERE aggregate_type = '{kind}'), {last}"
                                      f" FROM {source}", (argument,)).fetchone()
    received.append((time.time(), events))
    if way == "subscription":
        batch = last
    else:
        position = last or position
    return last


def wait():
    if way == "subscription":
        connection.execute("CALL cqrs_es.wait_for_events('latency', timeout => '1 s')")
    elif way == "cursor":
        connection.execute("CALL cqrs_es.wait_for_events(after_position => %s, timeout => '1 s')", (position,))
    elif way == "listen":
        select.select([listener], [], [], 1)
        listener.pgconn.consume_input()
        while listener.pgconn.notifies():
            pass
    else:
        time.sleep(0.001 if way == "naive" else 0.05)


receive()
log = f"{directory}/{kind}"
pgbench = subprocess.Popen(
    ["pgbench", "-n", "-M", "prepared", "-c", str(appenders), "-j", "2", "-T", str(seconds), "-R", str(rate), "-l", "--log-prefix", log,
     "-f", "subscribe_append.sql", "-D", f"type={kind}", "-D", "payload={}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
while pgbench.poll() is None:
    if not receive():
        wait()
while receive():
    pass
if pgbench.returncode != 0:
    sys.exit(pgbench.stderr.read().decode())

arrived = {tuple(event.split()): now for now, events in received if events for event in events.split(",")}
delays, appends, lost = [], [], 0
for name in glob.glob(log + ".*"):
    for line in open(name):
        client, number, *rest = line.split()
        lasted, _, second, micro, lag = map(int, rest)
        answered = second + micro / 1e6
        if (client, number) in arrived:
            delays.append(1000 * (arrived[client, number] - answered))
        else:
            lost += 1
        appends.append((lasted - lag) / 1000)
delays.sort()
appends.sort()
if lost and way != "naive":
    sys.exit(f"{lost} of {len(appends)} events never came")
print(f"{delays[len(delays) // 2]:.3f} {delays[len(delays) * 99 // 100]:.3f} {appends[len(appends) // 2]:.3f} {len(appends)} {lost}")
