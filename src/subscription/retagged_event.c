/*-------------------------------------------------------------------------
 * retagged_event.c
 *	  Events that get tags behind the positions of those who follow the log by tags.
 *
 * Tags that are defined when the log has events already are given to these by retag.  A
 * subscription or a projection that wants events with such a tag, and has passed some of
 * them, will not get those by itself.  So whoever defines the tags is told which ones these
 * are; what the batch in hand will move over counts as passed.  A projection that handles
 * events as they are appended has passed all of them.
 *
 * Not told is who passes them at this very time.  Nor is it looked for whether the events are of a
 * tenant and an aggregate type that are wanted, which nothing tells but the log.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "base/internal_query.h"
#include "log/event_filter.h"
#include "subscription/feed_name.h"
#include "subscription/retagged_event.h"
#include "subscription/subscription.h"
#include "tag/tag_definition.h"

static bool followers(const TagDefinition *definition, int64 position, bool tell);
static bool wants(const QueryRow *row, const TagDefinition *definition);
static NullableDatum array_of(const QueryRow *row, const char *column);
static void warn(int64 first, const char *subscriptions, const char *projections);

void
RetaggedEventInit(void)
{
	TagDefinitionSetFollowers(followers);
}

/* See TagFollowers. */
static bool
followers(const TagDefinition *definition, int64 position, bool tell)
{
	static InternalQuery query = {
		.sql = "SELECT f.name, f.is_projection, f.tags, f.event_types FROM ("
		"SELECT s.name, false AS is_projection, s.tags, s.event_types FROM cqrs_es.subscriptions AS s"
		" WHERE NOT pg_catalog.starts_with(s.name, $3) AND EXISTS (SELECT FROM cqrs_es.shares AS h"
		" WHERE h.subscription OPERATOR(pg_catalog.=) s.name AND greatest(h.position, h.batch_end) OPERATOR(pg_catalog.>=) $1)"
		" UNION ALL SELECT p.name, true, p.tags, NULL FROM cqrs_es.projections AS p"
		" WHERE EXISTS (SELECT FROM cqrs_es.handlers AS h WHERE h.projection OPERATOR(pg_catalog.=) p.name"
		" AND h.event_type IN ('*', $2)) AND CASE WHEN p.paused THEN p.handled_position OPERATOR(pg_catalog.>=) $1"
		" WHEN p.mode OPERATOR(pg_catalog.=) 'sync' THEN true"
		" ELSE (SELECT greatest(p.handled_position, h.position, h.batch_end) FROM cqrs_es.shares AS h"
		" WHERE h.subscription OPERATOR(pg_catalog.=) pg_catalog.concat($3, p.name)) OPERATOR(pg_catalog.>=) $1 END"
		") AS f WHERE f.tags IS NOT NULL ORDER BY f.name",
		.nargs = 3,.argtypes = {INT8OID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {Int64GetDatum(position), PointerGetDatum(definition->event_type),
		PointerGetDatum(FeedNameOf(cstring_to_text("")))};
	StringInfoData names[2];	/* of subscriptions, and of projections */
	uint64		n;
	uint64		i;

	initStringInfo(&names[0]);
	initStringInfo(&names[1]);
	SPI_connect();
	n = SubscriptionQuery(&query, values, NULL);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		StringInfo	list = &names[DatumGetBool(InternalQueryDatum(&row, "is_projection", NULL))];

		if (wants(&row, definition))
			appendStringInfo(list, "%s\"%s\"", list->len > 0 ? ", " : "", InternalQueryText(&row, "name"));
	}
	SPI_finish();
	if (tell)
		warn(position, names[0].data, names[1].data);
	return names[0].len + names[1].len > 0;
}

static bool
wants(const QueryRow *row, const TagDefinition *definition)
{
	EventFilter filter = {.event_types = EventFilterTexts(array_of(row, "event_types"), "event_types")};

	EventFilterSetTags(&filter, array_of(row, "tags"));
	return TagDefinitionConcerns(definition, &filter);
}

static NullableDatum
array_of(const QueryRow *row, const char *column)
{
	NullableDatum array;

	array.value = InternalQueryDatum(row, column, &array.isnull);
	return array;
}

/* WARNING of each kind, for which something else is to be done. */
static void
warn(int64 first, const char *subscriptions, const char *projections)
{
	if (subscriptions[0] != '\0')
		ereport(WARNING,
				(errmsg("subscriptions have passed positions at which events get these tags: %s", subscriptions),
				 errdetail("The first of them is %lld; consumers do not get what was passed.", (long long) first),
				 errhint("If they are to have these events, go back with reset_subscription() when retag() has ended.")));
	if (projections[0] != '\0')
		ereport(WARNING,
				(errmsg("projections have passed positions at which events get these tags: %s", projections),
				 errdetail("The first of them is %lld; they do not handle what was passed.", (long long) first),
				 errhint("Fill their tables anew with rebuild_projection() when retag() has ended.")));
}
