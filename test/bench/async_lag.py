"""async_lag.py RATE SECONDS DIRECTORY: how long after the answer to its COMMIT an event
is in the read table, while pgbench appends RATE events per second.  Prints the
milliseconds of half of the events, of 99 %, and of half of the appends themselves.

A reader looks every half of a millisecond; each client of pgbench has a stream, and so a
row, of its own, which says how far it is."""

import glob, subprocess, sys, time
from uuid import uuid4

import psycopg

rate, seconds, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
run = uuid4().hex
appenders = 4
arrived = [[] for _ in range(appenders)]
connection = psycopg.connect(autocommit=True)


def look():
    rows = connection.execute("SELECT split_part(account, ' ', 2)::int, sequence FROM bench.accounts"
                              " WHERE account = ANY (%s)", ([f"{run} {n}" for n in range(appenders)],), prepare=True).fetchall()
    now = time.time()
    found = False
    for client, sequence in rows:
        new = sequence - len(arrived[client])
        arrived[client].extend([now] * new)
        found = found or new > 0
    return found


log = f"{directory}/{run}"
pgbench = subprocess.Popen(
    ["pgbench", "-n", "-M", "prepared", "-c", str(appenders), "-j", "2", "-T", str(seconds), "-R", rate, "-l", "--log-prefix", log,
     "-f", "async_append.sql", "-D", f"run={run}", "-D", 'payload={"amount": 1250, "note": "short"}'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
while pgbench.poll() is None:
    if not look():
        time.sleep(0.0005)
if pgbench.returncode != 0:
    sys.exit(pgbench.stderr.read().decode())
lines = [list(map(int, line.split())) for name in glob.glob(log + ".*") for line in open(name)]
until = time.time() + 60
while sum(map(len, arrived)) < len(lines):
    look()
    if time.time() > until:
        sys.exit(f"{len(lines)} events were appended, and {sum(map(len, arrived))} of them handled")

delays, appends = [], []
# pgbench counts from 1, as sequences do
for client, number, lasted, _, second, micro, lag in lines:
    delays.append(1000 * (arrived[client][number - 1] - (second + micro / 1e6)))
    appends.append((lasted - lag) / 1000)
delays.sort()
appends.sort()
print(f"{delays[len(delays) // 2]:.3f} {delays[len(delays) * 99 // 100]:.3f} {appends[len(appends) // 2]:.3f}")
