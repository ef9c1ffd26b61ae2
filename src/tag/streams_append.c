/*-------------------------------------------------------------------------
 * streams_append.c
 *	  One append to several streams, under a condition or none.
 *
 * Each element of the JSON says to which stream its event goes; the elements of a stream
 * become one request (append_request.c), and append.c writes them all or none.
 *
 * Who decides across streams has often no use for them.  An event that names none becomes a
 * stream of its own: its key is the event's id, so that an append that is sent again with
 * the same id finds what it wrote.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/read_only.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/event_id.h"
#include "tag/event_tags.h"
#include "tag/match_condition.h"
#include "tag/matching.h"
#include "tag/streams_append.h"

PG_FUNCTION_INFO_V1(cqrs_es_append_to_streams);

/* What an element says of its stream. */
typedef struct StreamElement
{
	int			number;			/* of the element, from 0 */
	StreamKey	key;
	bool		is_own;			/* the event is a stream of its own */
	pg_uuid_t  *id;				/* given or, of a stream of its own, made here; or NULL */
	bool		is_fresh;		/* a stream that nobody else can name */
	bool		has_expected;	/* does it say so? */
	int64		expected_version;
} StreamElement;

static StreamElement *parse_elements(Jsonb *events, const char *origin);
static void parse_element(StreamElement *element, const JsonbValue *value);
static text *text_member(JsonbContainer *object, const char *member);
static bool get_member(JsonbContainer *object, const char *member, JsonbValue *value);
static int64 expected_member(const JsonbValue *value);
static void group_elements(StreamsAppend *append, StreamElement *elements, int nelements,
						   const char *origin, Jsonb *metadata, Jsonb *stamp);
static int64 expected_of(const StreamElement *elements, int n);
static int	compare_elements(const void *a, const void *b);
static void put_rows(FunctionCallInfo fcinfo, const StreamsAppend *append);

/* SQL: append_to_streams(events, fail_if_events_match, after_position) */
Datum
cqrs_es_append_to_streams(PG_FUNCTION_ARGS)
{
	int64		after_position = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	text	   *tenant_id;
	StreamsAppend *append;
	MatchCondition condition;

	ReadOnlyPrevent(fcinfo);
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("events must not be null")));
	append = StreamsAppendParse(PG_GETARG_JSONB_P(0), "the call", NULL, NULL);
	if (!PG_ARGISNULL(1))
	{
		tenant_id = TenancyCurrent();
		MatchConditionInit(&condition, TagQueryParse(PG_GETARG_JSONB_P(1)), tenant_id,
						   after_position);
	}
	EventsRequireRights(ACL_INSERT | ACL_SELECT);
	MatchingCheckPosition(after_position);
	(void) StreamsAppendRun(append, PG_ARGISNULL(1) ? NULL : &condition.base);
	put_rows(fcinfo, append);
	return (Datum) 0;
}

/* A row for each stream, in the order in which they were named first. */
static void
put_rows(FunctionCallInfo fcinfo, const StreamsAppend *append)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			i;

	for (i = 0; i < append->call.nevents; i++)
	{
		const AppendRequest *request = &append->call.requests[append->request_of[i]];
		const AppendResult *end = &append->call.results[append->request_of[i]];
		Datum		values[4] = {PointerGetDatum(request->key.aggregate_type),
			PointerGetDatum(request->key.aggregate_id),
			Int64GetDatum(end->version),
			Int64GetDatum(end->global_position)};
		bool		nulls[4] = {false};

		if (append->place_of[i] == 0)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/*
 * Append; the caller is behind ReadOnlyPrevent.  Returns the position of the last event.
 * Raises QE001 for a stream at another version than was expected, and what
 * AppendToStreams and the condition raise.
 */
int64
StreamsAppendRun(StreamsAppend *append, AppendCondition *condition)
{
	AppendCall *call = &append->call;
	int64		last = 0;
	int			conflict;
	int			i;

	call->condition = condition;
	conflict = AppendToStreams(call);
	if (conflict < call->nrequests)
		AppendReportConflict(&call->requests[conflict].key,
							 call->requests[conflict].expected_version,
							 call->results[conflict].version);
	for (i = 0; i < call->nrequests; i++)
		last = Max(last, call->results[i].global_position);
	return last;
}

/* Give one of the events, in the order given, another tag. */
void
StreamsAppendAddTag(StreamsAppend *append, int event, text *tag)
{
	AppendRequest *request = &append->call.requests[append->request_of[event]];
	ArrayType **tags;
	Datum		value = PointerGetDatum(tag);
	int			one = 1;

	if (request->tags == NULL)
		request->tags = palloc0(request->nevents * sizeof(ArrayType *));
	tags = &request->tags[append->place_of[event]];
	if (*tags == NULL)
		*tags = construct_empty_array(TEXTOID);
	if (ARR_NDIM(*tags) > 0)
		one = ARR_LBOUND(*tags)[0] + ARR_DIMS(*tags)[0];
	*tags = DatumGetArrayTypeP(array_set_element(PointerGetDatum(*tags), 1, &one, value, false,
												 -1, -1, false, TYPALIGN_INT));
}

/* Add the slots that the events have.  Behind RowExclusiveLock on the log. */
void
StreamsAppendAddSlots(const StreamsAppend *append, TagSlotSet *set)
{
	int			i;

	for (i = 0; i < append->call.nrequests; i++)
		EventTagsAddSlots(&append->call.requests[i], set);
}

/*-------------------------------------------------------------------------
 * from JSON
 *-------------------------------------------------------------------------
 */

/*
 * The events of a JSON array as an append, palloc'd; with metadata and a stamp for all of
 * them (append_request.h), or NULL.  Raises 22023 and what else is wrong with an
 * element; the error's context says with which, and of what: `origin`.
 */
StreamsAppend *
StreamsAppendParse(Jsonb *events, const char *origin, Jsonb *metadata, Jsonb *stamp)
{
	StreamsAppend *append = palloc0(sizeof(StreamsAppend));
	AppendCall *call = &append->call;
	StreamElement *elements;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	EventOrigin place = {.origin = origin,.number = 0};
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = AppendRequestDescribe,.arg = &place
	};
	int			i;

	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON array"),
				 errhint("Each element is an object: {\"aggregate_type\": ..., \"aggregate_id\": ..., \"type\": ..., \"payload\": ..., \"tags\": [...]}.")));
	if (JB_ROOT_COUNT(events) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there must be at least one event to append")));
	elements = parse_elements(events, origin);
	group_elements(append, elements, JB_ROOT_COUNT(events), origin, metadata, stamp);

	error_context_stack = &context;
	iterator = JsonbIteratorInit(&events->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		AppendRequest *request;
		int			at;

		if (token != WJB_ELEM)
			continue;
		i = place.number++;
		request = &call->requests[append->request_of[i]];
		at = append->place_of[i];
		AppendRequestParseEvent(request, at, &value, true);
		call->in_order[i] = &request->events[at];
	}
	error_context_stack = context.previous;

	/* a stream of its own has the id of its event */
	for (i = 0; i < call->nevents; i++)
	{
		const StreamElement *element = &elements[i];

		if (element->is_own)
			call->in_order[element->number]->values[EVENT_EVENT_ID] = UUIDPGetDatum(element->id);
	}
	return append;
}

/* What each element says of its stream, in the order of the array. */
static StreamElement *
parse_elements(Jsonb *events, const char *origin)
{
	StreamElement *elements = palloc0(JB_ROOT_COUNT(events) * sizeof(StreamElement));
	JsonbIterator *iterator = JsonbIteratorInit(&events->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	EventOrigin place = {.origin = origin,.number = 0};
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = AppendRequestDescribe,.arg = &place
	};

	error_context_stack = &context;
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_ELEM)
		{
			StreamElement *element = &elements[place.number];

			element->number = place.number++;
			parse_element(element, &value);
		}
	error_context_stack = context.previous;
	return elements;
}

static void
parse_element(StreamElement *element, const JsonbValue *value)
{
	JsonbContainer *object = AppendRequestEventObject(value);
	JsonbValue	expected;
	text	   *id = text_member(object, "id");

	element->key.aggregate_type = text_member(object, "aggregate_type");
	element->key.aggregate_id = text_member(object, "aggregate_id");
	element->key.tenant_id = TenancyCurrent();
	element->is_own = element->key.aggregate_type == NULL && element->key.aggregate_id == NULL;
	element->has_expected = get_member(object, "expected_version", &expected);
	element->expected_version = EXPECT_ANY;
	if (!element->is_own &&
		(element->key.aggregate_type == NULL || element->key.aggregate_id == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream needs both \"aggregate_type\" and \"aggregate_id\""),
				 errhint("Without both, the event becomes a stream of its own.")));
	if (element->is_own && element->has_expected)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"expected_version\" needs a stream"),
				 errdetail("The event names none, so it becomes a stream of its own.")));
	if (element->has_expected)
		element->expected_version = expected_member(&expected);
	if (!element->is_own)
	{
		NullableDatum type = {.value = PointerGetDatum(element->key.aggregate_type)};
		NullableDatum name = {.value = PointerGetDatum(element->key.aggregate_id)};

		(void) TextArgument(type, "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
		(void) TextArgument(name, "aggregate_id", AGGREGATE_ID_MAX_BYTES);
		return;
	}

	element->id = palloc(sizeof(pg_uuid_t));
	if (id)
		*element->id = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text_to_cstring(id))));
	else
		EventIdGenerate(element->id);
	element->is_fresh = id == NULL;
	element->key.aggregate_type = cstring_to_text(STREAM_OF_ITS_OWN);
	element->key.aggregate_id = cstring_to_text(EventIdText(element->id));
	element->expected_version = 0;
}

/* A member that is there, and not null. */
static bool
get_member(JsonbContainer *object, const char *member, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object, member, (int) strlen(member), value) != NULL &&
		value->type != jbvNull;
}

/* The member as text, NULL when it is not there; 22023 when it is no string. */
static text *
text_member(JsonbContainer *object, const char *member)
{
	JsonbValue	value;

	if (!get_member(object, member, &value))
		return NULL;
	if (value.type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("member \"%s\" of an event must be a string", member)));
	return cstring_to_text_with_len(value.val.string.val, value.val.string.len);
}

static int64
expected_member(const JsonbValue *value)
{
	NullableDatum expected = {.isnull = false};
	Datum		number;

	if (value->type != jbvNumeric ||
		!DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(value->val.numeric),
										  DirectFunctionCall2(numeric_trunc,
															  NumericGetDatum(value->val.numeric),
															  Int32GetDatum(0)))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("member \"%s\" of an event must be a whole number", "expected_version")));
	number = NumericGetDatum(value->val.numeric);
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, number,
										 DirectFunctionCall1(int8_numeric, Int64GetDatum(PG_INT64_MAX)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, number,
										 DirectFunctionCall1(int8_numeric, Int64GetDatum(EXPECT_EXISTS)))))
		AppendRequestReportExpected(DatumGetCString(DirectFunctionCall1(numeric_out, number)));
	expected.value = DirectFunctionCall1(numeric_int8, number);
	return AppendRequestExpected(expected);
}

/*
 * Make one request of the events of each stream, and say of each event where it belongs.
 * Sorts a copy of the elements.
 */
static void
group_elements(StreamsAppend *append, StreamElement *elements, int nelements,
			   const char *origin, Jsonb *metadata, Jsonb *stamp)
{
	AppendCall *call = &append->call;
	int		   *numbers = palloc(nelements * sizeof(int));
	StreamElement *sorted = palloc(nelements * sizeof(StreamElement));
	int			begin;
	int			end;

	append->request_of = palloc(nelements * sizeof(int));
	append->place_of = palloc(nelements * sizeof(int));
	call->nevents = nelements;
	call->in_order = palloc(nelements * sizeof(Event *));
	call->requests = palloc0(nelements * sizeof(AppendRequest));
	call->results = palloc0(nelements * sizeof(AppendResult));

	memcpy(sorted, elements, nelements * sizeof(StreamElement));
	qsort(sorted, nelements, sizeof(StreamElement), compare_elements);
	for (begin = 0; begin < nelements; begin = end)
	{
		AppendRequest *request = &call->requests[call->nrequests];
		const StreamKey *key = &sorted[begin].key;

		for (end = begin; end < nelements && StreamKeyEqual(key, &sorted[end].key); end++)
		{
			append->request_of[sorted[end].number] = call->nrequests;
			append->place_of[sorted[end].number] = end - begin;
			numbers[end] = sorted[end].number + 1;
		}
		AppendRequestInit(request, key, expected_of(sorted + begin, end - begin), end - begin);
		request->origin = origin;
		request->numbers = numbers + begin;
		request->metadata = metadata;
		request->stamp = stamp;
		call->nrequests++;
	}
	pfree(sorted);
}

/*
 * By stream, and in each as they were given.  Streams that nobody else can name come last:
 * for them no race is lost, so that what stands before them needs not be undone.
 */
static int
compare_elements(const void *a, const void *b)
{
	const StreamElement *left = a;
	const StreamElement *right = b;
	int			order = left->is_fresh - right->is_fresh;

	if (order == 0)
		order = StreamKeyCompare(&left->key, &right->key);
	return order != 0 ? order : left->number - right->number;
}

/* The version at which the elements want their stream before the first of them; 22023 for two. */
static int64
expected_of(const StreamElement *elements, int n)
{
	int64		expected_version = elements[0].is_own ? 0 : EXPECT_ANY;
	bool		has_expected = false;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (!elements[i].has_expected)
			continue;
		if (has_expected && elements[i].expected_version != expected_version)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("stream \"%s\" is expected at two versions", StreamKeyName(&elements[i].key)),
					 errdetail("One event says %lld, another %lld.",
							   (long long) expected_version,
							   (long long) elements[i].expected_version),
					 errhint("\"expected_version\" is that before the first event of the call; it suffices to say it once.")));
		expected_version = elements[i].expected_version;
		has_expected = true;
	}
	return expected_version;
}
