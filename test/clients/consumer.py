"""Consumers of a subscription with psycopg 3, to be copied; docs/subscriptions.md says
why they are so.  consumer.js does the same."""

import math, os, secrets, signal, socket, sys, time

import psycopg
from psycopg.rows import namedtuple_row


# Calls handle(event) for each event, each stream in order, at least once.  SIGTERM ends
# it behind the batch in hand, or, after 8 seconds, gives that back.
class Consumer:
    def __init__(self, subscription, handle, max_count=100):
        self.subscription, self.handle, self.max_count = subscription, handle, max_count
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.done, self.stop_at = None, math.inf        # done: the batch to be acknowledged

    def stop(self, *_):
        self.stop_at = min(self.stop_at, time.monotonic() + 8)

    def run(self):
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, self.stop)
        while self.stop_at == math.inf:
            try:
                with psycopg.connect(autocommit=True, row_factory=namedtuple_row) as self.connection:
                    self.consume()
            except psycopg.OperationalError as error:   # the server was restarted, or the like
                print(error, file=sys.stderr)
                time.sleep(1)

    def call(self, function, *arguments):
        return self.connection.execute(f"SELECT * FROM cqrs_es.{function}", arguments).fetchall()

    def consume(self):
        resume = True           # what was in hand when the connection broke comes at once
        while self.done or self.stop_at == math.inf:
            try:
                if self.stop_at < math.inf:
                    return self.call("ack_events(%s)", self.done)
                events = self.call("receive_events(%s, %s, %s, ack => %s, resume => %s)",
                                   self.subscription, self.name, self.max_count, self.done, resume)
                self.done, resume = None, False
                if events:
                    self.done = self.work(events[0].batch, events)
                else:
                    self.connection.execute("CALL cqrs_es.wait_for_events(%s, timeout => '3 s')", (self.subscription,))
            except psycopg.Error as error:
                if error.sqlstate != "QE401":           # somebody else has the batch by now
                    raise
                self.done = None
            except TimeoutError:
                return self.call("release_batch(%s)", events[0].batch)

    def work(self, batch, events):
        failed, renewed = set(), time.monotonic()
        for event in events:
            if time.monotonic() > self.stop_at:
                raise TimeoutError
            if time.monotonic() > renewed + 10:         # in time for a lease of 30 s
                self.call("extend_lease(%s)", batch)
                renewed = time.monotonic()
            stream = event.tenant_id, event.aggregate_type, event.aggregate_id
            try:
                if stream not in failed:                # else it comes again with the one that failed
                    self.attempt(event)
            except Exception as error:
                failed.add(stream)
                answer = self.call("nack_event(%s, %s, %s, event_id => %s)",
                                   batch, event.global_position, repr(error), event.event_id)
                if answer[0].nack_event == "halted":    # in the order of the log nothing goes past it
                    break
        return batch

    def attempt(self, event):
        self.handle(event)


# Calls handle(event, connection): what that writes through the connection is there
# exactly once, since it is committed with the acknowledgement.
class ExactlyOnce(Consumer):
    def work(self, batch, events):
        with self.connection.transaction():
            self.call("extend_lease(%s)", batch)        # locks it: nobody else gets it meanwhile
            super().work(batch, events)
            self.call("ack_events(%s)", batch)

    def attempt(self, event):
        with self.connection.transaction():             # a savepoint
            self.handle(event, self.connection)


if __name__ == "__main__":
    Consumer(sys.argv[1], lambda event: print(event.global_position, event.event_type, flush=True)).run()
