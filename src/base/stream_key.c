/*-------------------------------------------------------------------------
 * stream_key.c
 *	  Which stream.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/stream_key.h"

/* "type/id", for messages; palloc'd. */
char *
StreamKeyName(const StreamKey *key)
{
	return psprintf("%s/%s", text_to_cstring(key->aggregate_type),
					text_to_cstring(key->aggregate_id));
}
