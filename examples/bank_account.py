"""What is outside of bank_account.sql: a mailer, and a fraud check that answers with a
command.  Needs psycopg 3; to be copied together with consumer.py of test/clients.

    SMTP=localhost:25 python3 bank_account.py mails
    FRAUD_CHECK=http://localhost:8080/check python3 bank_account.py fraud_check

Any number of each may run.  The database is that of PGDATABASE, PGHOST and so on."""

import functools, json, os, smtplib, sys, urllib.request
from decimal import Decimal
from email.message import EmailMessage

from psycopg.types.json import Jsonb, set_json_loads

sys.path.append(os.path.dirname(os.path.abspath(__file__)) + "/../test/clients")    # or beside this file
from consumer import Consumer

set_json_loads(functools.partial(json.loads, parse_float=Decimal))      # money is exact

TEXTS = {
    "AccountOpened": "Your account {account} is open.",
    "CustomerDepositedMoney": "We have got {amount}; there are {balance} in your account.",
    "CustomerWithdrewCash": "You took {amount} out; there are {balance} in your account.",
    "CustomerWroteCheck": "Check {check_number} of {amount} was paid; there are {balance} in your account.",
    "AccountFrozen": "Your account {account} is frozen. Please call us.",
    "AccountReleased": "Your account {account} is as it was.",
}


# Whoever gets a mail twice, since a mailer died before it had acknowledged it, sees that
# by its Message-ID: it comes from the event, and is the same each time.
def mail(event):
    message = EmailMessage()
    message["Message-ID"] = f"<{event.event_id}@bank.example>"
    message["From"], message["To"] = "bank@bank.example", f"{event.aggregate_id}@customers.example"
    message["Subject"] = f"Your account {event.aggregate_id}"
    message.set_content(TEXTS[event.event_type].format_map({"account": event.aggregate_id} | event.payload))
    host, port = os.environ["SMTP"].split(":")
    # its own name is given, for to find it out may take seconds for each mail
    with smtplib.SMTP(host, int(port), local_hostname="bank.example", timeout=10) as server:
        server.send_message(message)


# Its answer is a command, and the event's id is the command's: when the event comes again,
# nothing is frozen again, also when somebody has released the account in between.  So
# there must be nothing in it that is not the same each time, as a score may not be.
def check_fraud(event):
    question = {"account": event.aggregate_id, "type": event.event_type, "amount": str(event.payload["amount"])}
    request = urllib.request.Request(os.environ["FRAUD_CHECK"], json.dumps(question).encode(),
                                     {"Content-Type": "application/json", "Idempotency-Key": str(event.event_id)})
    with urllib.request.urlopen(request, timeout=10) as answer:
        suspicious = json.load(answer)["suspicious"]
    if suspicious:
        consumer.call("execute_command('account', %s, 'FreezeAccount', %s, metadata => %s, command_id => %s)",
                      event.aggregate_id, Jsonb({"because": event.sequence}),
                      Jsonb({"correlation_id": event.metadata.get("correlation_id", str(event.event_id))}), event.event_id)


consumer = Consumer(sys.argv[1], {"mails": mail, "fraud_check": check_fraud}[sys.argv[1]], max_count=10)
consumer.run()
