"""The read side of circle.sql in Redis: reads what relay.py, or relay.js, has put into a
Redis stream, and keeps a hash for each circle, and a set of all.  Needs redis-py.

    python3 relay.py --subscription circles --redis redis://localhost:6379/0 --stream circles
    REDIS=redis://localhost:6379/0 python3 circle.py

    redis-cli HGETALL circle:c-1
    redis-cli SORT circle_ids BY 'circle:*->name' ALPHA GET 'circle:*->name' GET 'circle:*->capacity'

Any number of each may run.  When Redis has lost something, hand out all once more:
SELECT cqrs_es.reset_subscription('circles', 0)."""

import json, os, signal, sys, time

from redis import Redis
from redis.exceptions import RedisError, WatchError

STREAM, PLACE, IDS = "circles", "circles:read_to", "circle_ids"
redis = Redis.from_url(os.environ["REDIS"], decode_responses=True)
is_ended = False


# The circle and the place up to which the stream is read change together, or not at all:
# so nothing is lost when this dies, and of two of these only one does it.  An event that
# comes again, since a relay died, is known by its sequence.  So is one in front of which
# something is missing, since Redis lost it: a circle is never there by half.
def put(place, entry, event):
    circle = f"circle:{event['aggregate_id']}"
    with redis.pipeline() as transaction:
        transaction.watch(PLACE, circle)
        if read_to(transaction) != place:
            raise WatchError
        version = int(transaction.hget(circle, "version") or 0)
        transaction.multi()
        if event["sequence"] == version + 1:
            given = {field: event["payload"].get(field) for field in ("name", "capacity")}
            changes = {field: value for field, value in given.items() if value is not None}
            transaction.hset(circle, mapping=changes | {"version": event["sequence"]})
            transaction.sadd(IDS, event["aggregate_id"])
        transaction.set(PLACE, entry)
        transaction.execute()
    if event["sequence"] > version + 1:
        print(f"{circle}: event {event['sequence']} follows {version}: reset_subscription() is needed", file=sys.stderr)


def read_to(connection):
    return connection.get(PLACE) or "0-0"


# What is read is not needed any more: nobody else reads this stream.
def follow():
    place = read_to(redis)
    for _, entries in redis.xread({STREAM: place}, count=100, block=1000):
        for entry, fields in entries:
            put(place, entry, json.loads(fields["event"]))
            place = entry
        redis.xtrim(STREAM, minid=place, approximate=False)


def end(*_):
    global is_ended
    is_ended = True


for number in signal.SIGTERM, signal.SIGINT:
    signal.signal(number, end)
while not is_ended:
    try:
        follow()
    except WatchError:
        pass                                    # another one was quicker
    except RedisError as error:                 # Redis was restarted, or the like
        print(error, file=sys.stderr)
        time.sleep(1)
