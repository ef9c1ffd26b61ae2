// The three who listen to order.sql: a read model, an e-mail service, the API of a
// partner.  Needs Node.js 18 and node-postgres; to be copied together with consumer.js of
// test/clients.
//
//   node order.js order_read_model
//   MAIL_URL=http://localhost:8080/mails node order.js order_mails
//   API_URL=http://localhost:8080/orders node order.js order_api
//
// Any number of each may run.  The database is that of PGDATABASE, PGHOST and so on.

const { types } = require('pg')
const beside = { paths: [__dirname, `${__dirname}/../test/clients`] }
const { Consumer, ExactlyOnce } = require(require.resolve('./consumer.js', beside))

// Payloads stay the text that the server sent, so that no amount becomes a double.
types.setTypeParser(types.builtins.JSONB, String)

// In the course of what this happened: it goes with each call, into the logs of others.
const correlationId = (event) => JSON.parse(event.metadata).correlation_id ?? event.event_id

// The other side knows by the key what it has got already.
async function post(url, event, body) {
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': event.event_id, 'Correlation-Id': correlationId(event) }
  const answer = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(10000) })
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`)
}

// Counted in the transaction of the acknowledgement: each event once, whoever dies.
async function count(event, client) {
  await client.query('SELECT FROM count_demand($1, $2)', [event.tenant_id, event.payload])
}

// What is in sent_mails is not sent again.  Only who dies between the two, or waits for an
// answer that never comes, leaves a mail that is sent twice: with the same key.
async function mail(event) {
  const [order] = await consumer.call(
    `SELECT customer_id, EXISTS (SELECT FROM sent_mails WHERE event_id = $1) AS is_told
     FROM order_summary WHERE tenant_id = $2 AND order_id = $3`, event.event_id, event.tenant_id, event.aggregate_id)
  if (order.is_told) return
  await post(process.env.MAIL_URL, event, JSON.stringify({
    to: order.customer_id, subject: `${event.aggregate_id}: ${event.event_type}`, text: event.payload }))
  await consumer.call('INSERT INTO sent_mails VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING',
    event.event_id, event.tenant_id, event.aggregate_id, event.event_type, correlationId(event))
}

// The partner knows the key: so there is nothing to be noted here.
async function tell(event) {
  await post(process.env.API_URL, event,
    `{"tenant": ${JSON.stringify(event.tenant_id)}, "order": ${JSON.stringify(event.aggregate_id)}, ` +
    `"version": ${event.sequence}, "type": ${JSON.stringify(event.event_type)}, "payload": ${event.payload}}`)
}

const [Kind, handle] = {
  order_read_model: [ExactlyOnce, count],
  order_mails: [Consumer, mail],
  order_api: [Consumer, tell],
}[process.argv[2]]
const consumer = new Kind(process.argv[2], handle, 10)
consumer.run()
