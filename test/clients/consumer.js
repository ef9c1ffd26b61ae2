// Consumers of a subscription with node-postgres, to be copied; docs/subscriptions.md
// says why they are so.  consumer.py does the same.

const { randomBytes } = require('node:crypto')
const os = require('node:os')
const { setTimeout: sleep } = require('node:timers/promises')
const { Client } = require('pg')

// Calls handle(event) for each event, each stream in order, at least once.  SIGTERM ends
// it behind the batch in hand, or, after 8 seconds, gives that back.  Positions and
// sequences of events are strings, as every bigint in node-postgres.
class Consumer {
  constructor(subscription, handle, maxCount = 100) {
    const name = `${os.hostname()}:${process.pid}:${randomBytes(4).toString('hex')}`
    Object.assign(this, { subscription, handle, maxCount, name, done: null, stopAt: Infinity })
  }

  stop() { this.stopAt = Math.min(this.stopAt, performance.now() + 8000) }

  async run() {
    for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => this.stop())
    while (this.stopAt === Infinity) {
      this.client = new Client().on('error', () => {})  // the next query fails, too
      try {
        await this.client.connect()
        await this.consume()
      } catch (error) {
        if (/^(2[2-9]|42|P0|QE)/.test(error.code)) throw error
        console.error(error.message)                    // the server was restarted, or the like
        await sleep(1000)
      }
      this.client.end().catch(() => {})                 // not awaited: of a broken connection it may never end
    }
  }

  async consume() {
    let events, resume = true           // what was in hand when the connection broke comes at once
    while (this.done || this.stopAt === Infinity) {
      try {
        if (this.stopAt < Infinity) return await this.call('SELECT cqrs_es.ack_events($1)', this.done)
        events = await this.call('SELECT * FROM cqrs_es.receive_events($1, $2, $3, ack => $4, resume => $5)',
          this.subscription, this.name, this.maxCount, this.done, resume)
        this.done = null, resume = false
        if (events.length) this.done = await this.work(events[0].batch, events)
        else await this.call("CALL cqrs_es.wait_for_events($1, timeout => '3 s')", this.subscription)
      } catch (error) {
        if (error === released) return await this.call('SELECT cqrs_es.release_batch($1)', events[0].batch)
        if (error.code !== 'QE401') throw error         // somebody else has the batch by now
        this.done = null
      }
    }
  }

  async work(batch, events) {
    let renewed = performance.now(), failed = new Set()
    for (const event of events) {
      if (performance.now() > this.stopAt) throw released
      if (performance.now() > renewed + 10000)          // in time for a lease of 30 s
        renewed = await this.call('SELECT cqrs_es.extend_lease($1)', batch) && performance.now()
      const stream = JSON.stringify([event.tenant_id, event.aggregate_type, event.aggregate_id])
      if (failed.has(stream)) continue                  // comes again with the one that failed
      try { await this.attempt(event) } catch (error) {
        failed.add(stream)
        const [answer] = await this.call('SELECT cqrs_es.nack_event($1, $2, $3, event_id => $4)',
          batch, event.global_position, String(error), event.event_id)
        if (answer.nack_event === 'halted') break       // in the order of the log nothing goes past it
      }
    }
    return batch
  }

  async attempt(event) { await this.handle(event) }

  async call(sql, ...values) { return (await this.client.query(sql, values)).rows }
}

const released = new Error('no time is left for the batch')

// Calls handle(event, client): what that writes through the client is there exactly once,
// since it is committed with the acknowledgement.
class ExactlyOnce extends Consumer {
  async work(batch, events) {
    await this.inside('BEGIN', 'COMMIT', 'ROLLBACK', async () => {
      await this.call('SELECT cqrs_es.extend_lease($1)', batch) // locks it: nobody else gets it meanwhile
      await super.work(batch, events)
      await this.call('SELECT cqrs_es.ack_events($1)', batch)
    })
    return null
  }

  async attempt(event) {
    await this.inside('SAVEPOINT event', 'RELEASE event', 'ROLLBACK TO event', () => this.handle(event, this.client))
  }

  async inside(begin, end, undo, work) {
    await this.call(begin)
    try {
      await work()
      await this.call(end)
    } catch (error) {
      await this.call(undo).catch(() => {})
      throw error
    }
  }
}

module.exports = { Consumer, ExactlyOnce, released }

if (require.main === module) {
  new Consumer(process.argv[2], (event) => console.log(event.global_position, event.event_type)).run()
}
