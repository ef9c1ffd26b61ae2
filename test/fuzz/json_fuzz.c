/*-------------------------------------------------------------------------
 * json_fuzz.c
 *	  libFuzzer within a backend, over the JSON tree and reducer programs.
 *
 * json_tree.c and reducer_program.c live on the server: its memory, its errors,
 * its jsonb and numeric.  So they are not taken out of it; libFuzzer is brought
 * in instead, by a module that has the two files with coverage, this one, and
 * libFuzzer's driver.  test/t/066_fuzz.pl builds it and calls json_fuzz() in a
 * session that has not loaded the extension.
 *
 * Bytes are read as a state, a program and some payloads, not as JSON text, so
 * that each input is one, and mutations change documents rather than syntax.
 * Whatever they are:
 *
 *	- a document survives tree and back, to the last character
 *	- a program is compiled or refused (22023), applied or refused (QE102, and
 *	  what numeric and jsonb say of too much)
 *	- what it leaves is a jsonb that PostgreSQL reads as it has written it
 *	- merging says what a plain implementation of RFC 7396 over jsonb says
 *
 * What is not so aborts, and libFuzzer leaves the input in a file.  The driver
 * does not return: the backend ends with it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#include "base/errors.h"
#include "aggregate/json_tree.h"
#include "aggregate/reducer_program.h"

PG_MODULE_MAGIC;

#define MAX_DEPTH 6
#define MAX_EVENTS 4

/* What is left of the input; at its end come zeros. */
typedef struct Input
{
	const uint8_t *data;
	size_t		size;
} Input;

int			LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8_t *data, size_t size));

static int	play(const uint8_t *data, size_t size);
static void play_program(Input *input);
static void check_round_trip(Jsonb *document);
static void check_merge(Jsonb *target, Jsonb *patch);
static Jsonb *merged(Jsonb *target, Jsonb *patch);
static Event *some_event(Input *input);
static Jsonb *some_operations(Input *input, int n);
static Jsonb *some_document(Input *input);
static JsonbValue *push_value(Input *input, JsonbParseState **state, JsonbIteratorToken token, int depth);
static void push_string(JsonbParseState **state, JsonbIteratorToken token, const char *string);
static char *some_string(Input *input);
static char *some_path(Input *input);
static char *some_number(Input *input);
static char *json_text(Jsonb *json);

static MemoryContext fuzz_memory;

PG_FUNCTION_INFO_V1(json_fuzz);

/* json_fuzz(options text[]): those of libFuzzer. */
Datum
json_fuzz(PG_FUNCTION_ARGS)
{
	Datum	   *options;
	int			argc;
	char	  **argv;
	int			i;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &options, NULL, &argc);
	argv = palloc((argc + 2) * sizeof(char *));
	argv[0] = "json_fuzz";
	for (i = 0; i < argc; i++)
		argv[i + 1] = TextDatumGetCString(options[i]);
	argv[++argc] = NULL;
	fuzz_memory = AllocSetContextCreate(TopMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
	LLVMFuzzerRunDriver(&argc, &argv, play);
	PG_RETURN_VOID();
}

static uint8
byte(Input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static int
play(const uint8_t *data, size_t size)
{
	Input		input = {data, size};
	MemoryContext caller = MemoryContextSwitchTo(fuzz_memory);

	PG_TRY();
	{
		play_program(&input);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(fuzz_memory);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_INVALID_PARAMETER_VALUE &&
			error->sqlerrcode != ERRCODE_OPERATION_FAILED &&
			error->sqlerrcode != ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE &&
			error->sqlerrcode != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		{
			fprintf(stderr, "json_fuzz: %s %s\n", unpack_sql_state(error->sqlerrcode), error->message);
			abort();
		}
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextReset(fuzz_memory);
	return 0;
}

static void
play_program(Input *input)
{
	int			noperations = byte(input) % 6;
	int			nevents = 1 + byte(input) % MAX_EVENTS;
	Jsonb	   *state = some_document(input);
	ReducerProgram *program;
	MemoryContext state_memory;
	MemoryContext event_memory;
	MemoryContext caller = CurrentMemoryContext;
	JsonNode   *tree;

	check_round_trip(state);
	check_merge(state, some_document(input));
	program = ReducerProgramCompile(some_operations(input, noperations));
	state_memory = AllocSetContextCreate(caller, "state", ALLOCSET_DEFAULT_SIZES);
	event_memory = AllocSetContextCreate(caller, "event", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(state_memory);
	tree = JsonTreeFromJsonb(state);
	while (nevents-- > 0)
	{
		MemoryContextSwitchTo(event_memory);
		tree = ReducerProgramRun(program, tree, some_event(input), state_memory);
		check_round_trip(JsonTreeToJsonb(tree));
		MemoryContextReset(event_memory);
	}
	MemoryContextSwitchTo(state_memory);
	JsonTreeFree(tree);
	MemoryContextSwitchTo(caller);
}

/*-------------------------------------------------------------------------
 * what must hold
 *-------------------------------------------------------------------------
 */

static void
check_same(const char *what, const char *have, const char *want)
{
	if (strcmp(have, want) != 0)
	{
		fprintf(stderr, "json_fuzz: %s\nhave %s\nwant %s\n", what, have, want);
		abort();
	}
}

static void
check_round_trip(Jsonb *document)
{
	char	   *text = json_text(document);
	Datum		again = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));

	check_same("not as PostgreSQL reads it", json_text(DatumGetJsonbP(again)), text);
	check_same("tree and back", json_text(JsonTreeToJsonb(JsonTreeFromJsonb(document))), text);
}

static void
check_merge(Jsonb *target, Jsonb *patch)
{
	JsonbValue	value;
	char	   *want = json_text(merged(target, patch));

	JsonTreeDocumentValue(patch, &value);
	check_same("merge", json_text(JsonTreeToJsonb(JsonTreeMerge(JsonTreeFromJsonb(target), &value))), want);
}

/* RFC 7396, word for word. */
static Jsonb *
merged(Jsonb *target, Jsonb *patch)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	Jsonb	   *result;

	if (!JB_ROOT_IS_OBJECT(patch))
		return patch;
	result = JB_ROOT_IS_OBJECT(target) ? target :
		DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	iterator = JsonbIteratorInit(&patch->root);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		JsonbValue	value;
		JsonbValue *old;
		JsonbParseState *state = NULL;
		Datum		name;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		name = PointerGetDatum(cstring_to_text_with_len(key.val.string.val, key.val.string.len));
		old = getKeyJsonValueFromContainer(&result->root, key.val.string.val, key.val.string.len, NULL);
		if (value.type == jbvNull)
		{
			result = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(result), name));
			continue;
		}
		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		{
			Jsonb	   *inner = merged(old ? JsonbValueToJsonb(old) :
									   DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("null"))),
									   JsonbValueToJsonb(&value));
			JsonbValue	document;

			JsonTreeDocumentValue(inner, &document);
			(void) pushJsonbValue(&state, WJB_VALUE, &document);
		}
		result = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(result),
													JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)))));
	}
	return result;
}

/*-------------------------------------------------------------------------
 * documents, made of bytes
 *-------------------------------------------------------------------------
 */

static Event *
some_event(Input *input)
{
	Event	   *event = palloc0(sizeof(Event));
	int			column;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
		event->values[column] = PointerGetDatum(cstring_to_text(column == EVENT_AGGREGATE_ID ? some_string(input) : "e"));
	event->values[EVENT_GLOBAL_POSITION] = Int64GetDatum(byte(input));
	event->values[EVENT_SEQUENCE] = Int64GetDatum(PG_INT64_MAX);
	event->values[EVENT_CREATED_AT] = Int64GetDatum((int64) byte(input) * 1000001);
	event->values[EVENT_EVENT_ID] = UUIDPGetDatum((pg_uuid_t *) palloc0(sizeof(pg_uuid_t)));
	event->values[EVENT_PAYLOAD] = JsonbPGetDatum(some_document(input));
	event->values[EVENT_METADATA] = JsonbPGetDatum(some_document(input));
	return event;
}

static Jsonb *
some_operations(Input *input, int n)
{
	static const char *const kinds[] = {"set", "add", "replace", "remove", "increment", "decrement", "append", "merge"};
	static const char *const fields[] = {"", "payload", "metadata", "aggregate_id", "created_at", "global_position"};
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while (n-- > 0)
	{
		uint8		form = byte(input);

		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_string(&state, WJB_KEY, "op");
		push_string(&state, WJB_VALUE, kinds[form % 8]);
		push_string(&state, WJB_KEY, "path");
		push_string(&state, WJB_VALUE, some_path(input));
		if (form & 8)
		{
			push_string(&state, WJB_KEY, "from");
			push_string(&state, WJB_VALUE, psprintf("%s%s", fields[byte(input) % lengthof(fields)], some_path(input)));
			push_string(&state, WJB_KEY, "optional");
			(void) pushJsonbValue(&state, WJB_VALUE, &(JsonbValue) {.type = jbvBool,.val.boolean = (form & 16) != 0});
		}
		else if (form & 32)
		{
			push_string(&state, WJB_KEY, "value");
			(void) push_value(input, &state, WJB_VALUE, 2);
		}
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

static Jsonb *
some_document(Input *input)
{
	JsonbParseState *state = NULL;
	JsonbValue *value = push_value(input, &state, WJB_DONE, 0);

	return JsonbValueToJsonb(value);
}

/* A value below what is being made (an element, a value), or by itself (WJB_DONE). */
static JsonbValue *
push_value(Input *input, JsonbParseState **state, JsonbIteratorToken token, int depth)
{
	uint8		form = byte(input);
	int			n = form >> 3;
	JsonbValue	scalar;
	int			i;

	if (depth < MAX_DEPTH && form % 8 < 3)
	{
		(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		for (i = 0; i < n; i++)
		{
			/* many members get an index in the tree */
			push_string(state, WJB_KEY, n > 16 ? psprintf("%d", i) : some_string(input));
			(void) push_value(input, state, WJB_VALUE, depth + 1 + (n > 16 ? 3 : 0));
		}
		return pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	if (depth < MAX_DEPTH && form % 8 == 3)
	{
		(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		for (i = 0; i < n % 8; i++)
			(void) push_value(input, state, WJB_ELEM, depth + 1);
		return pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	if (form % 8 == 4 || form % 8 == 5)
	{
		scalar.type = jbvNumeric;
		scalar.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(some_number(input)),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	else if (form % 8 == 6)
	{
		scalar.type = n % 3 == 0 ? jbvNull : jbvBool;
		scalar.val.boolean = n % 3 == 1;
	}
	else
	{
		scalar.type = jbvString;
		scalar.val.string.val = some_string(input);
		scalar.val.string.len = strlen(scalar.val.string.val);
	}
	if (token != WJB_DONE)
		return pushJsonbValue(state, token, &scalar);
	return (JsonbValue *) memcpy(palloc(sizeof(scalar)), &scalar, sizeof(scalar));
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = pstrdup(string);
	value.val.string.len = strlen(string);
	(void) pushJsonbValue(state, token, &value);
}

static char *
some_string(Input *input)
{
	static const char *const strings[] = {
		"a", "b", "c", "", "0", "1", "2", "-", "~", "/", "~1", "ä", "01", "4294967296", "n", "{/a}"
	};
	uint8		form = byte(input);
	char	   *string;
	int			i;

	if (form < 224)
		return pstrdup(strings[form % lengthof(strings)]);
	string = palloc0(form - 224 + 1);
	for (i = 0; i < form - 224; i++)
		string[i] = 1 + byte(input) % 127;
	return string;
}

/* A pointer, not always a valid one. */
static char *
some_path(Input *input)
{
	static const char *const segments[] = {
		"/a", "/b", "/n", "/0", "/1", "/-", "/", "/~0", "/~1", "/{/a}", "/{/b/0}", "/{aggregate_id}", "/{metadata/a}", "/ä", "/16", "/~"
	};
	char	   *path = "";
	uint8		form;

	while ((form = byte(input)) != 0)
		path = psprintf("%s%s", path, form < 224 ? segments[form % lengthof(segments)] : some_string(input));
	return path;
}

static char *
some_number(Input *input)
{
	uint8		form = byte(input);
	StringInfoData number;
	int			i;

	initStringInfo(&number);
	if (form & 1)
		appendStringInfoChar(&number, '-');
	for (i = 0; i < 1 + (form >> 4) * 2; i++)
		appendStringInfoChar(&number, '0' + byte(input) % 10);
	if (form & 2)
	{
		appendStringInfoChar(&number, '.');
		for (i = 0; i < 1 + (form >> 5); i++)
			appendStringInfoChar(&number, '0' + byte(input) % 10);
	}
	if ((form & 12) == 12)
		appendStringInfo(&number, "e%d", (int) (int8) byte(input));
	return number.data;
}

static char *
json_text(Jsonb *json)
{
	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}
