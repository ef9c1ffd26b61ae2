/*-------------------------------------------------------------------------
 * redacted_error.c
 *	  Errors of consumers that may tell what was redacted.
 *
 * Parked streams, dead letters and nacked events hold no events, but texts of errors, and a
 * text like 'Key (email)=(bob@example.com) already exists' is a copy.  So the texts of the
 * stream go, of whichever of its events they are.  What is delivered again is read from the log.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"

#include "base/registry.h"
#include "log/redaction.h"
#include "subscription/redacted_error.h"

static void forget_errors(const Redaction *redaction);

void
RedactedErrorInit(void)
{
	static const RedactionPart part = {.follow = forget_errors};

	RedactionRegister(&part);
}

static void
forget_errors(const Redaction *redaction)
{
#define FORGET_ERRORS(table) { \
		.sql = "UPDATE cqrs_es." table " SET error = '" REDACTED_TEXT "'" \
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2" \
		" AND tenant_id OPERATOR(pg_catalog.=) $3 AND error IS NOT NULL", \
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID} \
	}
	static InternalQuery of_streams[] = {
		FORGET_ERRORS("parked_streams"), FORGET_ERRORS("dead_letters"), FORGET_ERRORS("nacked_events")
	};

	/* where events are handed out in the order of the log, of the one that failed */
	static InternalQuery of_subscriptions = {
		.sql = "UPDATE cqrs_es.subscriptions SET stopped_error = '" REDACTED_TEXT "'"
		" WHERE stopped_error IS NOT NULL AND name IN (SELECT subscription FROM cqrs_es.shares"
		" WHERE failed_position OPERATOR(pg_catalog.=) ANY ($1))",
		.nargs = 1,.argtypes = {INT8ARRAYOID}
	};
	static InternalQuery of_shares = {
		.sql = "UPDATE cqrs_es.shares SET error = '" REDACTED_TEXT "'"
		" WHERE error IS NOT NULL AND failed_position OPERATOR(pg_catalog.=) ANY ($1)",
		.nargs = 1,.argtypes = {INT8ARRAYOID}
	};
	Datum		values[3] = {PointerGetDatum(redaction->key.aggregate_type),
		PointerGetDatum(redaction->key.aggregate_id), PointerGetDatum(redaction->key.tenant_id)};
	Datum		positions = PointerGetDatum(redaction->positions);
	size_t		i;

	for (i = 0; i < lengthof(of_streams); i++)
		(void) RegistryWrite(&of_streams[i], values, NULL);
	(void) RegistryWrite(&of_subscriptions, &positions, NULL);
	(void) RegistryWrite(&of_shares, &positions, NULL);
}
