// cqrs_es from JavaScript, with node-postgres.  Declared by account.sql; the
// database is where the environment says (PGHOST, PGDATABASE, ...).  account.py
// does the same.

const { randomUUID } = require('node:crypto')
const { Pool, types } = require('pg')

// node-postgres hands out a bigint as a string, and '1' + 1 is '11'.  Versions and
// global positions stay below 2^53, so they are exact as numbers.
types.setTypeParser(types.builtins.INT8, Number)

const pool = new Pool({ max: 4 })

// Commands that the database decides.  A rejection is an answer, not an accident:
// it carries the message and the code that the decider gave to reject().

class Rejected extends Error {
  constructor(message, code) {
    super(message)
    this.code = code
  }
}

async function execute(client, account, command, payload, commandId = randomUUID()) {
  try {
    const { rows } = await client.query({
      name: 'execute',      // with a name it is prepared, once for each connection
      text: `SELECT version, state FROM cqrs_es.execute_command(
                 'account', $1, $2, $3, command_id => $4)`,
      values: [account, command, payload, commandId],
    })
    return rows[0]
  } catch (e) {
    if (e.code === 'QE301') throw new Rejected(e.message, e.constraint)
    throw e
  }
}

// A transaction that is done again when somebody was quicker.  What failed has ended
// it, so it is done again as a whole, with whatever belongs to it.

async function retry(pool, work, tries = 10) {
  const client = await pool.connect()
  try {
    for (;;) {
      try {
        await client.query('BEGIN')
        const result = await work(client)
        await client.query('COMMIT')
        return result
      } catch (e) {
        await client.query('ROLLBACK').catch(() => {})
        if (!['QE001', '40001', '40P01'].includes(e.code) || --tries === 0) throw e
      }
    }
  } finally {
    client.release()
  }
}

// Decisions that are made here: load, decide, append with the version that was
// loaded.  When no answer came, call it again with the same eventId.

function update(pool, account, decide, eventId = randomUUID()) {
  return retry(pool, async (client) => {
    const loaded = await client.query(
      "SELECT version, state FROM cqrs_es.load_aggregate('account', $1)", [account])
    const { version, state } = loaded.rows[0]
    const [eventType, payload] = await decide(state)
    const { rows } = await client.query(
      "SELECT version FROM cqrs_es.append_event('account', $1, $2, $3, $4, event_id => $5)",
      [account, eventType, payload, version, eventId])
    return rows[0].version
  })
}

// A worker that reads the log, one page at a time.  The cursor moves with the page,
// in one transaction; the last row says how far, also when it has no event.

async function work(client, reader, eventTypes, handle) {
  try {
    await client.query('BEGIN')
    const cursor = await client.query('SELECT position FROM cursors WHERE reader = $1 FOR UPDATE', [reader])
    const { rows } = await client.query(
      `SELECT event_id, event_type, aggregate_id, payload, read_to
       FROM cqrs_es.read_page($1, 100, event_types => $2)`, [cursor.rows[0].position, eventTypes])
    const events = rows.filter((row) => row.event_id !== null)
    for (const event of events) await handle(event)
    await client.query('UPDATE cursors SET position = $1 WHERE reader = $2', [rows.at(-1).read_to, reader])
    await client.query('COMMIT')
    return events.length > 0
  } catch (e) {
    await client.query('ROLLBACK').catch(() => {})
    throw e
  }
}

async function main() {
  // A command sent twice with one command_id happens once.
  const client = await pool.connect()
  const commandId = randomUUID()
  for (let i = 0; i < 2; i++) {
    const { version, state } = await execute(client, 'a1', 'Open', { owner: 'Ada' }, commandId)
    console.log(`opened: version ${version}, owner ${state.owner}, balance ${state.balance}`)
  }
  for (const amount of [0.1, 0.2]) {
    const { version, state } = await execute(client, 'a1', 'Deposit', { amount })
    console.log(`deposited ${amount}: version ${version}, balance ${state.balance}, next is version ${version + 1}`)
  }
  const prepared = await client.query(
    "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%execute_command%'")
  console.log(`prepared statements: ${prepared.rows[0].count}`)
  client.release()

  for (const [command, payload] of [['Withdraw', { amount: 1000 }], ['Open', { owner: 'Mallory' }]]) {
    try {
      await execute(pool, 'a1', command, payload)
    } catch (e) {
      if (!(e instanceof Rejected)) throw e
      console.log(`rejected: ${e.message}, code ${e.code}`)
    }
  }

  // All that QE001 says.
  try {
    await pool.query("SELECT cqrs_es.append_event('account', 'a1', 'Renamed', '{}', expected_version => 2)")
  } catch (e) {
    console.log(`conflict ${e.code}: ${e.schema}/${e.table} expected ${Number(e.column)}, actual ${Number(e.dataType)}`)
  }

  // Somebody is quicker, once.
  const owners = []
  let version = await update(pool, 'a1', async (state) => {
    owners.push(state.owner)
    if (owners.length === 1) await update(pool, 'a1', () => ['Renamed', { owner: 'Augusta' }])
    return ['Renamed', { owner: `${state.owner} King` }]
  })
  console.log(`decided for ${owners.join(', then for ')}: version ${version}`)

  // Many events at once.  node-postgres makes a PostgreSQL array of every
  // JavaScript array: where JSON is meant, make it a string first.
  const appended = await pool.query(
    "SELECT version FROM cqrs_es.append_events('account', $1, $2, expected_version => $3)",
    ['a1', JSON.stringify([
      { type: 'Deposited', payload: { amount: 10 } },
      { type: 'Withdrawn', payload: { amount: 3 }, metadata: { atm: 'A7' } },
    ]), version])
  version = appended.rows[0].version
  console.log(`appended an array of JSON: version ${version}`)
  const arrays = await pool.query(
    "SELECT version FROM cqrs_es.append_event_arrays('account', $1, $2, $3, expected_version => $4)",
    ['a1', ['Deposited', 'Withdrawn'], [{ amount: 20 }, { amount: 2 }], version])
  version = arrays.rows[0].version
  console.log(`appended arrays: version ${version}`)

  // What every event of a transaction carries, and none after it.  A transaction
  // needs a connection of its own, not the pool.
  await retry(pool, async (client) => {
    await client.query("SELECT set_config('cqrs_es.context', $1, true)", [{ user: 'ada' }])
    await client.query("SELECT cqrs_es.append_event('account', 'a1', 'Reviewed', '{}')")
  })
  await pool.query("SELECT cqrs_es.append_event('account', 'a1', 'Reviewed', '{}')")
  const events = await pool.query(
    "SELECT sequence, metadata FROM cqrs_es.read_stream('account', $1, from_sequence => $2)", ['a1', version + 1])
  for (const { sequence, metadata } of events.rows) {
    const text = JSON.stringify(metadata).replaceAll(':', ': ')
    console.log(`event ${sequence}: metadata ${text}`)
  }

  // Many at a time over few connections: a lost race is decided again in the server.
  const deposits = await Promise.all(Array.from({ length: 100 }, () =>
    execute(pool, 'a1', 'Deposit', { amount: 0.01 })))
  const versions = deposits.map((deposit) => deposit.version)
  console.log(`100 deposits at once: versions ${Math.min(...versions)} to ${Math.max(...versions)},` +
    ` ${new Set(versions).size} different ones`)

  // A number in JSON becomes a double.  Where that is not enough, take it as text.
  const state = await pool.query(
    "SELECT state->>'owner' AS owner, state->>'balance' AS balance FROM cqrs_es.aggregate_state('account', $1) AS state", ['a1'])
  console.log(`state: owner ${state.rows[0].owner}, balance ${state.rows[0].balance}`)
  const none = await pool.query("SELECT cqrs_es.aggregate_state('account', $1) AS state", ['none'])
  console.log(none.rows[0].state === null ? 'no such account' : none.rows[0].state)

  // Two workers share a cursor.
  const mails = []
  await Promise.all([1, 2].map(async () => {
    const worker = await pool.connect()
    while (await work(worker, 'mails', ['Deposited', 'Closed'], (event) => mails.push(event))) { /* next page */ }
    worker.release()
  }))
  console.log(`mails of two workers: ${mails.length}`)
}

main().finally(() => pool.end())
