"""Hands the events of a subscription on to an HTTP receiver, or to a Redis stream: each
stream of events in order, each event at least once.  Who guarantees what, and what each
answer means: docs/subscriptions.md.  relay.js does the same.

    python3 relay.py --subscription hooks --url https://example.org/events
    python3 relay.py --subscription hooks --redis redis://localhost:6379/0 --stream events

Start as many as you like: those of one subscription share its events.  The database is
that of PGHOST and the like.  An option may be given as RELAY_URL, and so on, instead, and
RELAY_AUTHORIZATION is sent as that header.  It takes the loop of consumer.py, psycopg 3,
and redis-py for --redis; to be copied together with consumer.py."""

import argparse, calendar, contextlib, email.utils, os, re, signal, sys, time
import urllib.error, urllib.request
from datetime import timedelta

sys.path.append(os.path.dirname(os.path.abspath(__file__)) + "/../test/clients")    # or beside this file
from consumer import Consumer

# The body is made by the server: so numbers stay exact, and each attempt sends the same.
EVENT = """batch, attempt, global_position, event_id, tenant_id, aggregate_type, aggregate_id,
    extract(epoch FROM leased_until - clock_timestamp())::float8 AS lease,
    json_build_object('event_id', event_id, 'event_type', event_type, 'event_version', event_version,
        'tenant_id', tenant_id, 'aggregate_type', aggregate_type, 'aggregate_id', aggregate_id,
        'sequence', sequence, 'global_position', global_position,
        'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'payload', payload, 'metadata', metadata)::text AS body"""


class Refused(Exception):
    def __init__(self, error, retry_after=None, give_up=False):
        super().__init__(error)
        self.retry_after, self.give_up = retry_after, give_up


# Calls deliver(event, seconds), which ends within that time.
class Relay(Consumer):
    def __init__(self, subscription, deliver, timeout):
        super().__init__(subscription, deliver, max_count=1)
        self.timeout = timeout

    def call(self, function, *arguments):
        columns = EVENT if function.startswith("receive_events") else "*"
        return self.connection.execute(f"SELECT {columns} FROM cqrs_es.{function}", arguments).fetchall()

    def work(self, batch, events):
        begun, failed = time.monotonic(), set()
        leased_until, renewal = begun + events[0].lease, max(events[0].lease, self.timeout + 5)
        for event in events:
            now = time.monotonic()
            if now >= self.stop_at:
                raise TimeoutError                      # gives the batch back
            stream = event.tenant_id, event.aggregate_type, event.aggregate_id
            if stream in failed:                        # comes again with the one that failed
                continue
            if now + self.timeout + 5 > leased_until:   # the lease must not end during the request
                self.call("extend_lease(%s, by => %s)", batch, timedelta(seconds=renewal))
                leased_until = now + renewal
            try:
                self.handle(event, min(self.timeout, self.stop_at - now))
            except Exception as error:
                failed.add(stream)
                answer = self.call("nack_event(%s, %s, %s, retry_after => %s, give_up => %s, event_id => %s)",
                                   batch, event.global_position, repr(error), getattr(error, "retry_after", None),
                                   getattr(error, "give_up", False), event.event_id)
                if answer[0].nack_event == "halted":    # in the order of the log nothing goes past it
                    break
        # Next time as many as take a second: so much comes again when this process is killed.
        self.max_count = max(1, min(100, int(len(events) / (time.monotonic() - begun))))
        return batch


# Time-outs of sockets are for one read of many; this is one for the whole.
@contextlib.contextmanager
def within(seconds):
    def over(*_):
        raise TimeoutError("no answer in time")
    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# What the receiver says of it, as far as it comes.
def beginning(answer):
    with contextlib.suppress(Exception):
        return answer.read(300)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    redirect_request = lambda *_: None


def to_http(url, authorization):
    opener = urllib.request.build_opener(NoRedirects)
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})

    def deliver(event, seconds):
        request = urllib.request.Request(url, event.body.encode(), method="POST", headers=headers | {
            "Idempotency-Key": str(event.event_id), "X-Attempt": str(event.attempt)})
        with within(seconds):
            try:
                opener.open(request, timeout=seconds).close()
            except urllib.error.HTTPError as answer:
                raise Refused(f"HTTP {answer.code} {beginning(answer)!r}", retry_after(answer.headers.get("Retry-After", "")),
                              400 <= answer.code < 500 and answer.code not in (408, 425, 429)) from None
    return deliver


# Seconds, or a date.  When it is none, or is over, the delay of the subscription holds.
def retry_after(text):
    try:
        seconds = int(text) if text.isdecimal() else calendar.timegm(email.utils.parsedate(text)) - time.time()
        return timedelta(seconds=min(seconds, 365 * 86400)) if seconds > 0 else None
    except (ValueError, TypeError, OverflowError):
        return None


def to_redis(url, stream):
    from redis import Redis
    redis = Redis.from_url(url)

    def deliver(event, seconds):
        with within(seconds):
            try:
                redis.xadd(stream, {"event_id": str(event.event_id), "event": event.body})
            except BaseException:
                redis.connection_pool.disconnect()      # or a late answer would be taken for the next one
                raise
    return deliver


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in ("subscription", None), ("url", None), ("redis", None), ("stream", "events"), ("timeout", "5"):
        parser.add_argument(f"--{option}", default=os.environ.get(f"RELAY_{option.upper()}", default))
    options = parser.parse_args()
    timeout = float(options.timeout)
    if not options.subscription or bool(options.url) == bool(options.redis) or not timeout > 0:
        parser.error("needs --subscription, --url or --redis, and a --timeout above 0")
    if options.redis:
        deliver = to_redis(options.redis, options.stream)
    elif re.match("https?://[^/@]+(/|$)", options.url):
        deliver = to_http(options.url, os.environ.get("RELAY_AUTHORIZATION"))
    else:
        parser.error("--url is an http or https address, without a password")
    Relay(options.subscription, deliver, timeout).run()
