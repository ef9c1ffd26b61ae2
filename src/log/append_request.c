/*-------------------------------------------------------------------------
 * append_request.c
 *	  What to append: from the arguments of SQL, from JSON, or put together by a
 *	  command.
 *
 * All of a request is checked before anything of the stream is looked at, so that
 * what cannot be appended to any stream is refused in the same way whatever the
 * stream holds.  What is known only at the stream's end, sequences and the time,
 * append.c fills in.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/stream_key.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/append_request.h"
#include "log/context.h"
#include "log/event_id.h"
#include "log/reserved_type.h"

/* An argument as a NullableDatum; with FmgrInfo's own array, just that. */
#define ARG(n)	(fcinfo->args[n])

static void begin_request(AppendRequest *append, FunctionCallInfo fcinfo, int nevents,
						  int expected_arg);
static void set_event(AppendRequest *append, int i, NullableDatum event_type,
					  NullableDatum event_version, NullableDatum payload,
					  NullableDatum metadata, NullableDatum event_id);
static void set_tags(AppendRequest *append, int i, ArrayType *tags);
static ArrayType *tags_of_json(const JsonbValue *value);
static ArrayType *tags_of_array_element(NullableDatum element);
static Jsonb *merge_metadata(const AppendRequest *append, NullableDatum own);
static void parse_event(AppendRequest *append, int i, JsonbContainer *object,
						bool names_stream);
static bool is_of_stream(const char *member);
static NullableDatum member_text(JsonbValue *value, const char *member);
static int	array_elements(NullableDatum array, Oid type, const char *what,
						   int expected, NullableDatum **elements);

/*-------------------------------------------------------------------------
 * from the arguments of SQL
 *-------------------------------------------------------------------------
 */

/* Of append_event. */
void
AppendRequestOfEvent(AppendRequest *append, FunctionCallInfo fcinfo)
{
	begin_request(append, fcinfo, 1, 4);
	set_event(append, 0, ARG(2), ARG(7), ARG(3), ARG(5), ARG(6));
	if (!PG_ARGISNULL(8))
		set_tags(append, 0, PG_GETARG_ARRAYTYPE_P(8));
}

/* Of append_events. */
void
AppendRequestOfBatch(AppendRequest *append, FunctionCallInfo fcinfo)
{
	Jsonb	   *events;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("events must not be null")));
	events = PG_GETARG_JSONB_P(2);
	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON array"),
				 errhint("Each element is an object: {\"type\": ..., \"payload\": ..., \"metadata\": ..., \"id\": ..., \"version\": ..., \"tags\": [...]}.")));

	begin_request(append, fcinfo, JB_ROOT_COUNT(events), 3);
	AppendRequestParse(append, events, "the batch");
}

/* Of append_event_arrays. */
void
AppendRequestOfArrays(AppendRequest *append, FunctionCallInfo fcinfo)
{
	static const NullableDatum null = {.isnull = true};
	NullableDatum *types;
	NullableDatum *payloads;
	NullableDatum *metadata = NULL;
	NullableDatum *ids = NULL;
	NullableDatum *versions = NULL;
	NullableDatum *tags = NULL;
	EventOrigin place = {.origin = "the arrays",.number = 0};
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = AppendRequestDescribe,.arg = &place
	};
	int			n;
	int			i;

	n = array_elements(ARG(2), TEXTOID, "event_types", -1, &types);
	(void) array_elements(ARG(3), JSONBOID, "payloads", n, &payloads);
	if (!PG_ARGISNULL(5))
		(void) array_elements(ARG(5), JSONBOID, "metadata", n, &metadata);
	if (!PG_ARGISNULL(6))
		(void) array_elements(ARG(6), UUIDOID, "event_ids", n, &ids);
	if (!PG_ARGISNULL(7))
		(void) array_elements(ARG(7), TEXTOID, "event_versions", n, &versions);
	if (!PG_ARGISNULL(8))
		(void) array_elements(ARG(8), JSONBOID, "tags", n, &tags);

	begin_request(append, fcinfo, n, 4);
	append->origin = place.origin;
	error_context_stack = &context;
	for (i = 0; i < n; i++)
	{
		place.number++;
		set_event(append, i, types[i], versions ? versions[i] : null, payloads[i],
				  metadata ? metadata[i] : null, ids ? ids[i] : null);
		if (tags && !tags[i].isnull)
			set_tags(append, i, tags_of_array_element(tags[i]));
	}
	error_context_stack = context.previous;
}

/*
 * Begin with the arguments that all three functions share: the stream first, the
 * expected version at expected_arg.
 */
static void
begin_request(AppendRequest *append, FunctionCallInfo fcinfo, int nevents, int expected_arg)
{
	StreamKey	key;

	key.aggregate_type = TextArgument(ARG(0), "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key.aggregate_id = TextArgument(ARG(1), "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key.tenant_id = TenancyCurrent();
	AppendRequestInit(append, &key, AppendRequestExpected(ARG(expected_arg)), nevents);
}

/* An expected version argument; 22023 when it is none. */
int64
AppendRequestExpected(NullableDatum arg)
{
	int64		expected_version;

	if (arg.isnull)
		return EXPECT_ANY;
	expected_version = DatumGetInt64(arg.value);
	if (expected_version < EXPECT_EXISTS)
		AppendRequestReportExpected(psprintf(INT64_FORMAT, expected_version));
	return expected_version;
}

/* 22023 for a number that is none. */
void
AppendRequestReportExpected(const char *expected_version)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("expected_version %s is out of range", expected_version),
			 errhint("Use NULL for any version, -1 for a stream that exists, 0 for one that does not, or the version you read.")));
}

/*
 * The elements of a one-dimensional array argument, palloc'd.  Returns their
 * number, which must be `expected` unless that is -1.
 */
static int
array_elements(NullableDatum array, Oid type, const char *what, int expected,
			   NullableDatum **elements)
{
	ArrayType  *value;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	int			i;

	if (array.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	value = DatumGetArrayTypeP(array.value);
	if (ARR_NDIM(value) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", what)));
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	deconstruct_array(value, type, typlen, typbyval, typalign, &datums, &nulls, &n);
	if (expected >= 0 && n != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must have as many elements as event_types", what),
				 errdetail("It has %d, event_types has %d.", n, expected)));
	*elements = palloc(Max(n, 1) * sizeof(NullableDatum));
	for (i = 0; i < n; i++)
	{
		(*elements)[i].value = datums[i];
		(*elements)[i].isnull = nulls[i];
	}
	return n;
}

/*-------------------------------------------------------------------------
 * the events
 *-------------------------------------------------------------------------
 */

/* Start an append of so many events, which the caller fills in; 22023 for none. */
void
AppendRequestInit(AppendRequest *append, const StreamKey *key, int64 expected_version,
				  int nevents)
{
	if (nevents < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there must be at least one event to append")));
	append->key = *key;
	append->expected_version = expected_version;
	append->seen = NULL;
	append->metadata = NULL;
	append->stamp = NULL;
	append->tags = NULL;
	append->stored = NULL;
	append->nevents = nevents;
	append->origin = NULL;
	append->numbers = NULL;
	append->events = MemoryContextAllocHuge(CurrentMemoryContext,
											(Size) nevents * sizeof(Event));
	append->has_id = palloc(nevents * sizeof(bool));
}

/*
 * Fill in the events from a JSON array with as many elements.  22023 and what else is
 * wrong with one; the error's context says with which, and of what: `origin`.
 */
void
AppendRequestParse(AppendRequest *append, Jsonb *events, const char *origin)
{
	JsonbIterator *iterator = JsonbIteratorInit(&events->root);
	JsonbIteratorToken token;
	JsonbValue	element;
	EventOrigin place = {.origin = origin,.number = 0};
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = AppendRequestDescribe,.arg = &place
	};

	append->origin = origin;
	error_context_stack = &context;
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		place.number++;
		AppendRequestParseEvent(append, place.number - 1, &element, false);
	}
	error_context_stack = context.previous;
}

/*
 * Fill in one event from an element of an array.  Where each of its elements names a stream,
 * what it says of that was dealt with by the caller.
 */
void
AppendRequestParseEvent(AppendRequest *append, int i, const JsonbValue *element,
						bool names_stream)
{
	parse_event(append, i, AppendRequestEventObject(element), names_stream);
}

/* An element of an array as the object that an event is; 22023 when it is none. */
JsonbContainer *
AppendRequestEventObject(const JsonbValue *element)
{
	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an event must be a JSON object"),
				 errhint("It is {\"type\": ..., \"payload\": ..., \"metadata\": ..., \"id\": ..., \"version\": ..., \"tags\": [...]}.")));
	return element->val.binary.data;
}

/* The callback of an error context: which event is being looked at; an EventOrigin. */
void
AppendRequestDescribe(void *arg)
{
	const EventOrigin *place = arg;

	errcontext("event %d of %s", place->number, place->origin);
}

/*
 * Fill in one event from {"type", "payload", "metadata", "id", "version", "tags"}.  Without a
 * payload it is an event without fields.
 */
static void
parse_event(AppendRequest *append, int i, JsonbContainer *object, bool names_stream)
{
	NullableDatum type = {.isnull = true};
	NullableDatum version = {.isnull = true};
	NullableDatum payload = {.isnull = true};
	NullableDatum metadata = {.isnull = true};
	NullableDatum id = {.isnull = true};
	ArrayType  *tags = NULL;
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *member = NULL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			member = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (strcmp(member, "payload") == 0)
		{
			payload.value = JsonbPGetDatum(JsonbValueToJsonb(&value));
			payload.isnull = false;
		}
		else if (names_stream && is_of_stream(member))
			 /* known */ ;
		else if (strcmp(member, "type") != 0 && strcmp(member, "version") != 0 &&
				 strcmp(member, "metadata") != 0 && strcmp(member, "id") != 0 &&
				 strcmp(member, "tags") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("an event has no member \"%s\"", member),
					 names_stream ?
					 errhint("The members are type, payload, metadata, id, version, tags, aggregate_type, aggregate_id and expected_version.") :
					 errhint("The members are type, payload, metadata, id, version and tags.")));
		else if (value.type == jbvNull)
			 /* as if it were not there */ ;
		else if (strcmp(member, "type") == 0)
			type = member_text(&value, member);
		else if (strcmp(member, "version") == 0)
			version = member_text(&value, member);
		else if (strcmp(member, "metadata") == 0)
		{
			metadata.value = JsonbPGetDatum(JsonbValueToJsonb(&value));
			metadata.isnull = false;
		}
		else if (strcmp(member, "tags") == 0)
			tags = tags_of_json(&value);
		else
		{
			id = member_text(&value, member);
			id.value = DirectFunctionCall1(uuid_in,
										   CStringGetDatum(TextDatumGetCString(id.value)));
		}
	}
	if (type.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an event must have a member \"type\"")));
	if (payload.isnull)
	{
		payload.value = JsonbPGetDatum(ContextEmptyObject());
		payload.isnull = false;
	}
	set_event(append, i, type, version, payload, metadata, id);
	if (tags)
		set_tags(append, i, tags);
}

/* Is it a member that says something of the stream? */
static bool
is_of_stream(const char *member)
{
	return strcmp(member, "aggregate_type") == 0 || strcmp(member, "aggregate_id") == 0 ||
		strcmp(member, "expected_version") == 0;
}

static NullableDatum
member_text(JsonbValue *value, const char *member)
{
	NullableDatum result = {.isnull = false};

	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("member \"%s\" of an event must be a string", member)));
	result.value = PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
															value->val.string.len));
	return result;
}

/*
 * Fill in one event.  The payload may be any JSON value: the log does not look
 * into it, and serializers write events without fields as strings or nulls.
 * A null version is '1', null metadata is empty, a null id is made here.
 */
static void
set_event(AppendRequest *append, int i, NullableDatum event_type, NullableDatum event_version,
		  NullableDatum payload, NullableDatum metadata, NullableDatum event_id)
{
	Event	   *event = &append->events[i];
	text	   *type;

	if (payload.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payload must not be null"),
				 errhint("For an event without fields use '{}'.")));

	type = TextArgument(event_type, "event_type", EVENT_TYPE_MAX_BYTES);
	ReservedTypeRefuse(type);
	event->values[EVENT_TENANT_ID] = PointerGetDatum(append->key.tenant_id);
	event->values[EVENT_AGGREGATE_TYPE] = PointerGetDatum(append->key.aggregate_type);
	event->values[EVENT_AGGREGATE_ID] = PointerGetDatum(append->key.aggregate_id);
	event->values[EVENT_EVENT_TYPE] = PointerGetDatum(type);
	event->values[EVENT_EVENT_VERSION] = PointerGetDatum(event_version.isnull ?
														 cstring_to_text("1") :
														 TextArgument(event_version, "event_version",
																	  EVENT_VERSION_MAX_BYTES));
	event->values[EVENT_PAYLOAD] = JsonbPGetDatum(DatumGetJsonbP(payload.value));
	event->values[EVENT_METADATA] = JsonbPGetDatum(merge_metadata(append, metadata));
	event->row = NULL;
	append->has_id[i] = !event_id.isnull;
	if (event_id.isnull)
	{
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

		EventIdGenerate(id);
		event->values[EVENT_EVENT_ID] = UUIDPGetDatum(id);
	}
	else
		event->values[EVENT_EVENT_ID] = event_id.value;
}

/* The tags that an event is given beside those of its type; see AppendRequestCheckTags. */
static void
set_tags(AppendRequest *append, int i, ArrayType *tags)
{
	if (AppendRequestCheckTags(tags) == 0)
		return;
	if (append->tags == NULL)
		append->tags = MemoryContextAllocExtended(CurrentMemoryContext,
												  (Size) append->nevents * sizeof(ArrayType *),
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	append->tags[i] = tags;
}

/*
 * Each of the tags that an event is given must be a text that can be one.  Returns how many there
 * are.  Raises 22004, 22023, 22001, 2202E.
 */
int
AppendRequestCheckTags(ArrayType *tags)
{
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	int			tag;

	if (ARR_NDIM(tags) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("tags must be a one-dimensional array")));
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &datums, &nulls, &n);
	for (tag = 0; tag < n; tag++)
	{
		NullableDatum one = {.value = datums[tag],.isnull = nulls[tag]};

		(void) TextArgument(one, "tag", EVENT_TAG_MAX_BYTES);
	}
	return n;
}

/* The member "tags" of an event as text[]; 22023. */
static ArrayType *
tags_of_json(const JsonbValue *value)
{
	JsonbContainer *array = value->val.binary.data;
	Datum	   *datums;
	int			n;
	int			i;

	if (value->type != jbvBinary || !JsonContainerIsArray(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tags of an event must be an array of strings")));
	n = JsonContainerSize(array);
	datums = palloc(Max(n, 1) * sizeof(Datum));
	for (i = 0; i < n; i++)
	{
		JsonbValue *tag = getIthJsonbValueFromContainer(array, i);

		if (tag->type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("tags of an event must be an array of strings")));
		datums[i] = PointerGetDatum(cstring_to_text_with_len(tag->val.string.val, tag->val.string.len));
	}
	return construct_array(datums, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* The same from an element of the argument of append_event_arrays. */
static ArrayType *
tags_of_array_element(NullableDatum element)
{
	Jsonb	   *json = DatumGetJsonbP(element.value);
	JsonbValue	value = {.type = jbvNull};

	if (!JB_ROOT_IS_SCALAR(json))
	{
		value.type = jbvBinary;
		value.val.binary.data = &json->root;
		value.val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
	return tags_of_json(&value);
}

/*
 * The metadata of an event.  Where several give a key a value, the last of these
 * has its way:
 *
 *	1. the transaction's context (context.c);
 *	2. what all events of the request get;
 *	3. the event's own;
 *	4. the stamp, which no event can change.  It is part of 2 as well, so an event
 *	   without metadata of its own needs no look at it.
 *
 * Raises 22023 when something of it is not an object.
 */
static Jsonb *
merge_metadata(const AppendRequest *append, NullableDatum own)
{
	Datum		merged;

	if (own.isnull)
		return ContextMetadata(append->metadata ? append->metadata : ContextEmptyObject());
	merged = JsonbPGetDatum(DatumGetJsonbP(own.value));
	if (JB_ROOT_IS_OBJECT(DatumGetJsonbP(merged)))
	{
		if (append->metadata)
			merged = DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(append->metadata), merged);
		if (append->stamp)
			merged = DirectFunctionCall2(jsonb_concat, merged, JsonbPGetDatum(append->stamp));
	}
	return ContextMetadata(DatumGetJsonbP(merged));
}
