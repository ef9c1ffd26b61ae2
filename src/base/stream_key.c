/*-------------------------------------------------------------------------
 * stream_key.c
 *	  Which stream.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/stream_key.h"
#include "base/text.h"

/* "type/id", for messages; palloc'd. */
char *
StreamKeyName(const StreamKey *key)
{
	return psprintf("%s/%s", text_to_cstring(key->aggregate_type),
					text_to_cstring(key->aggregate_id));
}

/* By the columns aggregate_type, aggregate_id and tenant_id of a row, palloc'd. */
StreamKey
StreamKeyOfRow(const QueryRow *row)
{
	StreamKey	key = {
		.aggregate_type = InternalQueryTextCopy(row, "aggregate_type"),
		.aggregate_id = InternalQueryTextCopy(row, "aggregate_id"),
		.tenant_id = InternalQueryTextCopy(row, "tenant_id")
	};

	return key;
}

/* Are they the same stream?  Ids are compared first, since they differ most. */
bool
StreamKeyEqual(const StreamKey *a, const StreamKey *b)
{
	return TextEqual(a->aggregate_id, b->aggregate_id) &&
		TextEqual(a->aggregate_type, b->aggregate_type) &&
		TextEqual(a->tenant_id, b->tenant_id);
}

/* In the order in which those are taken who need several: below, above or equal to 0. */
int
StreamKeyCompare(const StreamKey *a, const StreamKey *b)
{
	int			order = TextCompare(a->aggregate_type, b->aggregate_type);

	if (order == 0)
		order = TextCompare(a->aggregate_id, b->aggregate_id);
	return order != 0 ? order : TextCompare(a->tenant_id, b->tenant_id);
}
