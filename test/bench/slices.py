"""slices.py NAME ROUNDS SECONDS DIRECTORY CONTESTANT...: what contestants get done when they take short turns, and what
processor time that takes. Prints a table, and writes lines for test/bench/chart to DIRECTORY/figures.

A CONTESTANT is LABEL|CLIENTS|OPERATIONS|SCRIPT[|OPTION...]: a pgbench with so many clients, each transaction of which
is so many operations. All are started, stopped by SIGSTOP, and then run for SECONDS each, ROUNDS times, in
alternating order, while the others stand still. So whatever else the machine does meets all alike, and none has
to begin anew.

A single client and its backend share one processor in a turn, the same for all of a round: how often one wakes
the other on another processor would outweigh what they do.

Processor time is that of the backends and of pgbench. Those of sessions that last are read from the kernel's
schedstat, in nanoseconds; a pgbench that reconnects (-C) has others all the time, which are counted when they have
ended. Ratios are those of the first to each of the others: above 1 it is faster, or needs less. Shown are medians over the
rounds, in brackets the quartiles; and the milliseconds within which 99 % of the transactions were done that began and ended
in one turn."""

import atexit, bisect, glob, os, signal, subprocess, sys, time
from statistics import median, quantiles

name, rounds, seconds, directory = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
postmaster = int(open(os.environ["PGHOST"] + "/data/postmaster.pid").readline())
processors = sorted(os.sched_getaffinity(0))
tick = 1 / os.sysconf("SC_CLK_TCK")


def stat(pid):
    """What /proc/PID/stat says behind the name: the first is the state."""
    return open(f"/proc/{pid}/stat").read().rpartition(") ")[2].split()


def processor(task):
    """Seconds of processor time of a task, /proc/... ."""
    try:
        return int(open(task + "/schedstat").read().split()[0]) / 1e9
    except FileNotFoundError:
        utime, stime = open(task + "/stat").read().rpartition(") ")[2].split()[11:13]
        return (int(utime) + int(stime)) * tick


class Contestant:
    def __init__(self, number, argument):
        self.label, clients, operations, script, *options = argument.split("|")
        self.clients, self.operations = int(clients), int(operations)
        self.reconnects = "-C" in options
        self.log = f"{directory}/log.{number}"
        self.error = f"{directory}/error.{number}"
        self.slices = []                        # begin, end, processor time
        application = f"{name} {number}"
        self.pgbench = subprocess.Popen(
            ["pgbench", "-n", "-U", "bench_writer", "-c", clients, "-j", clients, "-T", "86400", "-l", "--log-prefix", self.log, "-f", script,
             *([] if "-M" in options else ["-M", "prepared"]), "-D", f"base={time.time_ns() // 1000}", "-D", "i=0", "-D", "ready=0", *options],
            env={**os.environ, "PGAPPNAME": application}, stdout=subprocess.DEVNULL, stderr=open(self.error, "w"))
        # one that stands still would stay for ever
        atexit.register(self.pgbench.kill)
        self.backends = []
        until = time.time() + 60
        while not self.reconnects and len(self.backends) < self.clients:
            found = subprocess.run(["psql", "-XAtc", f"SELECT pid FROM pg_stat_activity WHERE application_name = '{application}' AND usename = 'bench_writer' AND query <> ''"],
                                   check=True, capture_output=True, text=True).stdout.split()
            # the first session of pgbench looks around, and ends
            self.backends = found if len(found) == self.clients else []
            self.check(time.time() < until)
        # until caches are warm, and pages that are written to are in the WAL as a whole
        time.sleep(0.5)
        self.stop()

    def check(self, well=True):
        if self.pgbench.poll() is not None or not well:
            sys.exit(f"{self.label}: " + open(self.error).read())

    def stop(self):
        self.pgbench.send_signal(signal.SIGSTOP)
        ended = time.time()
        # what is under way comes to its end
        time.sleep(0.005)
        used, still = self.processor(), 0
        while still < 3 and time.time() < ended + 1:
            time.sleep(0.002)
            before, used = used, self.processor()
            still = still + 1 if used == before and all(stat(pid)[0] == "S" for pid in self.backends) else 0
        self.check()
        return ended

    def processor(self):
        threads = sum(map(processor, glob.glob(f"/proc/{self.pgbench.pid}/task/*")))
        if self.reconnects:
            children = stat(postmaster)[13:15]
            return threads + sum(map(int, children)) * tick
        return threads + sum(processor(f"/proc/{pid}") for pid in self.backends)

    def slice(self, n):
        if self.clients == 1 and not self.reconnects:
            for task in self.backends + list(map(os.path.basename, glob.glob(f"/proc/{self.pgbench.pid}/task/*"))):
                os.sched_setaffinity(int(task), {processors[n % len(processors)]})
        used, begun = self.processor(), time.time()
        self.pgbench.send_signal(signal.SIGCONT)
        time.sleep(seconds)
        ended = self.stop()
        self.slices.append((begun, ended, self.processor() - used))

    def end(self):
        # pgbench takes an alarm for the end of its time
        self.pgbench.send_signal(signal.SIGALRM)
        self.pgbench.send_signal(signal.SIGCONT)
        self.pgbench.wait()
        done, lasted = [0] * len(self.slices), []
        begins = [begun for begun, _, _ in self.slices]
        for file in glob.glob(self.log + ".*"):
            for line in open(file):
                _, _, latency, _, second, micro, *_ = map(int, line.split())
                ended = second + micro / 1e6
                i = bisect.bisect(begins, ended) - 1
                if i >= 0:
                    done[i] += self.operations
                    if ended - latency / 1e6 >= begins[i]:
                        lasted.append(latency / 1000)
            os.remove(file)
        # one that got nothing done in a slice counts half of one transaction
        done = [n or self.operations / 2 for n in done]
        lasted.sort()
        self.most = lasted[len(lasted) * 99 // 100] if lasted else float("nan")
        self.rates = [n / (ended - begun) for n, (begun, ended, _) in zip(done, self.slices)]
        self.costs = [1e6 * used / n for n, (_, _, used) in zip(done, self.slices)]


def spread(values, form):
    low, _, high = quantiles(values, method="inclusive") if len(values) > 1 else values * 3
    return f"{median(values):{form}} ({low:{form}} to {high:{form}})"


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
contestants = [Contestant(number, argument) for number, argument in enumerate(sys.argv[5:])]
for contestant in contestants:                  # not counted
    contestant.slice(0)
    contestant.slices.clear()
for n in range(rounds):
    for contestant in contestants if n % 2 else contestants[::-1]:
        contestant.slice(n)
for contestant in contestants:
    contestant.end()

print(f"\n{name:30}{'per second':>30}{'microseconds':>32}{'99 %':>10}{'ratio':>24}{'in microseconds':>24}")
first = contestants[0]
with open(f"{directory}/figures", "a") as figures:
    for contestant in contestants:
        line = f"  {contestant.label:28}{spread(contestant.rates, ',.0f'):>30}{spread(contestant.costs, ',.1f'):>32}{contestant.most:>10.2f}"
        if contestant is not first:
            line += f"{spread([a / b for a, b in zip(first.rates, contestant.rates)], '.2f'):>24}"
            line += f"{spread([b / a for a, b in zip(first.costs, contestant.costs)], '.2f'):>24}"
        print(line.rstrip(), flush=True)
        print(f"{name}: microseconds of processor time|{contestant.label}|{median(contestant.costs):.1f}", file=figures)
