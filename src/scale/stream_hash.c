/*-------------------------------------------------------------------------
 * stream_hash.c
 *	  Where a stream belongs, among several servers.
 *
 * The first four bytes of the SHA-256 of "type/id" in UTF-8, the greatest first, without the
 * sign.  Not one of the server's hash functions: these depend on its encoding and on the order of its bytes, nobody
 * promises that a later version has the same, and clients in other languages cannot
 * compute them.  This one is forever: with another, streams would be looked for where
 * they are not.
 *
 * The tenant is not in it.  Where a role is bound to its tenant, who sends a call does not know
 * the tenant, and must find the same server as who does.
 *
 * What proxy_functions() prints for the front is the same in SQL, for want of this library there.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "base/sha256.h"
#include "base/text.h"
#include "log/event_columns.h"
#include "log/events.h"
#include "scale/stream_hash.h"

PG_FUNCTION_INFO_V1(cqrs_es_stream_hash);

/* SQL: stream_hash(aggregate_type, aggregate_id) */
Datum
cqrs_es_stream_hash(PG_FUNCTION_ARGS)
{
	text	   *aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);

	PG_RETURN_INT32(StreamHash(aggregate_type, aggregate_id));
}

/* From 0 to 2^31 - 1. */
int32
StreamHash(const text *aggregate_type, const text *aggregate_id)
{
	char	   *name = psprintf("%s/%s", text_to_cstring(aggregate_type), text_to_cstring(aggregate_id));
	char	   *utf8 = pg_server_to_any(name, strlen(name), PG_UTF8);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	Sha256(utf8, strlen(utf8), digest);
	return (int32) (((uint32) (digest[0] & 0x7f) << 24) | ((uint32) digest[1] << 16) |
					((uint32) digest[2] << 8) | (uint32) digest[3]);
}
