// Hands the events of a subscription on to an HTTP receiver, or to a Redis stream: each
// stream of events in order, each event at least once.  Who guarantees what, and what each
// answer means: docs/subscriptions.md.  relay.py does the same.
//
//     node relay.js --subscription hooks --url https://example.org/events
//     node relay.js --subscription hooks --redis redis://localhost:6379/0 --stream events
//
// Start as many as you like: those of one subscription share its events.  The database is
// that of PGHOST and the like.  An option may be given as RELAY_URL, and so on, instead, and
// RELAY_AUTHORIZATION is sent as that header.  It takes the loop of consumer.js, Node.js 18,
// node-postgres, and node-redis for --redis; to be copied together with consumer.js.

const { parseArgs } = require('node:util')
const beside = { paths: [__dirname, `${__dirname}/../test/clients`] }
const { Consumer, released } = require(require.resolve('./consumer.js', beside))

// The body is made by the server: so numbers stay exact, and each attempt sends the same.
const COLUMNS = `batch, attempt, global_position, event_id, tenant_id, aggregate_type, aggregate_id,
  extract(epoch FROM leased_until - clock_timestamp())::float8 AS lease,
  json_build_object('event_id', event_id, 'event_type', event_type, 'event_version', event_version,
    'tenant_id', tenant_id, 'aggregate_type', aggregate_type, 'aggregate_id', aggregate_id,
    'sequence', sequence, 'global_position', global_position,
    'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'payload', payload, 'metadata', metadata)::text AS body`

// Calls deliver(event, seconds), which ends within that time.
class Relay extends Consumer {
  constructor(subscription, deliver, timeout) { Object.assign(super(subscription, deliver, 1), { timeout }) }

  call(sql, ...values) {
    return super.call(sql.includes('receive_events') ? sql.replace('*', COLUMNS) : sql, ...values)
  }

  async work(batch, events) {
    const begun = clock(), failed = new Set()
    let leasedUntil = begun + events[0].lease
    const renewal = Math.max(events[0].lease, this.timeout + 5)
    for (const event of events) {
      const now = clock()
      if (now >= this.stopAt / 1000) throw released     // gives the batch back
      const stream = JSON.stringify([event.tenant_id, event.aggregate_type, event.aggregate_id])
      if (failed.has(stream)) continue                  // comes again with the one that failed
      if (now + this.timeout + 5 > leasedUntil) {       // the lease must not end during the request
        await this.call('SELECT cqrs_es.extend_lease($1, by => $2)', batch, `${renewal} s`)
        leasedUntil = now + renewal
      }
      try { await this.handle(event, Math.min(this.timeout, this.stopAt / 1000 - now)) } catch (error) {
        failed.add(stream)
        const [answer] = await this.call(
          'SELECT cqrs_es.nack_event($1, $2, $3, retry_after => $4, give_up => $5, event_id => $6)',
          batch, event.global_position, [error, error.cause?.code].join(' ').trim(),
          error.retryAfter && `${error.retryAfter} s`, error.giveUp ?? false, event.event_id)
        if (answer.nack_event === 'halted') break       // in the order of the log nothing goes past it
      }
    }
    // Next time as many as take a second: so much comes again when this process is killed.
    this.maxCount = Math.max(1, Math.min(100, Math.floor(events.length / (clock() - begun))))
    return batch
  }
}

class Refused extends Error {
  constructor(message, retryAfter, giveUp) { Object.assign(super(message), { retryAfter, giveUp }) }
}

const clock = () => performance.now() / 1000

function toHttp(url, authorization) {
  const headers = { 'Content-Type': 'application/json', ...(authorization && { Authorization: authorization }) }
  return async (event, seconds) => {
    const answer = await fetch(url, {
      method: 'POST', body: event.body, redirect: 'manual', signal: AbortSignal.timeout(Math.ceil(1000 * seconds)),
      headers: { ...headers, 'Idempotency-Key': event.event_id, 'X-Attempt': String(event.attempt) },
    })
    if (answer.ok) return answer.body?.cancel().catch(() => {})
    const text = (await answer.text().catch(() => '')).slice(0, 300).replace(/[^ -~]/g, '?')
    throw new Refused(`HTTP ${answer.status} ${text}`, retryAfter(answer.headers.get('Retry-After') ?? ''),
      answer.status >= 400 && answer.status < 500 && ![408, 425, 429].includes(answer.status))
  }
}

// Seconds, or a date, which is one of GMT.  When it is none, or is over, the delay of the subscription holds.
function retryAfter(text) {
  const seconds = /^[0-9]+$/.test(text) ? Number(text) : (Date.parse(text.replace(/( GMT)?$/, ' GMT')) - Date.now()) / 1000
  return seconds > 0 ? Math.min(seconds, 365 * 86400) : null
}

function toRedis(url, stream) {
  const { createClient } = require('redis')
  let client
  return async (event, seconds) => {
    // One that fails is replaced, and none keeps commands to be sent later.
    const socket = { connectTimeout: 1000 * seconds, reconnectStrategy: (_, cause) => cause ?? new Error('broken') }
    const mine = client ??= createClient({ url, socket, disableOfflineQueue: true }).on('error', () => {})
    const add = async () => {
      if (!mine.isOpen) await mine.connect()
      await mine.xAdd(stream, '*', { event_id: event.event_id, event: event.body })
    }
    let timer
    const over = new Promise((_, reject) => { timer = setTimeout(reject, 1000 * seconds, new Error('no answer in time')) })
    try { await Promise.race([add(), over]) } catch (error) {
      client = null
      Promise.resolve().then(() => mine.destroy ? mine.destroy() : mine.disconnect()).catch(() => {})
      throw error.socketError ?? error
    } finally { clearTimeout(timer) }
  }
}

async function main() {
  const options = { stream: 'events', timeout: '5' }
  const known = ['subscription', 'url', 'redis', 'stream', 'timeout']
  for (const name of known) options[name] = process.env[`RELAY_${name.toUpperCase()}`] ?? options[name]
  Object.assign(options, parseArgs({ options: Object.fromEntries(known.map((name) => [name, { type: 'string' }])) }).values)
  const { subscription, url, redis, stream } = options, timeout = Number(options.timeout)
  if (!subscription || !url === !redis || !(timeout > 0)) {
    throw new Error('needs --subscription, --url or --redis, and a --timeout above 0')
  }
  if (url && !/^https?:\/\/[^/@]+(\/|$)/.test(url)) throw new Error('--url is an http or https address, without a password')
  const deliver = url ? toHttp(url, process.env.RELAY_AUTHORIZATION) : toRedis(redis, stream)
  return new Relay(subscription, deliver, timeout).run()
}

module.exports = { Relay, toHttp, toRedis }

if (require.main === module) {
  main().then(() => process.exit(), (error) => { console.error(error); process.exit(1) })
}
