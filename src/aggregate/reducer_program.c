/*-------------------------------------------------------------------------
 * reducer_program.c
 *	  Declared reducers: a list of operations that change the state.
 *
 * An operation is written in the vocabulary of JSON Patch (RFC 6902) over JSON
 * Pointers (RFC 6901), {"op", "path", and "value" or "from"}:
 *
 *	add, replace, remove	as in RFC 6902
 *	set						create or replace, making the objects above it
 *	increment, decrement	a number (1 when no operand is given); one that is
 *							not there counts as 0
 *	append					to an array; one that is not there is made
 *	merge					RFC 7396
 *
 * "value" is a literal.  "from" takes the operand from the event: a JSON
 * Pointer into its payload ("/amount"), or the name of one of its own fields
 * ("aggregate_id", "created_at"), behind payload and metadata followed by a
 * pointer if need be ("metadata/user").  A path segment in braces takes its key
 * from the event in the same way: "/lines/{/sku}/quantity".  With
 * "optional": true an operation whose "from" finds nothing, or null, is left
 * out instead of failing.
 *
 * Programs are compiled once, when they are defined (errors point at the
 * operation, 22023) and when a backend first uses them, and run on a tree
 * (json_tree.c).  Numbers are numeric, exact.  An operation that cannot be
 * applied raises QE102; the state is then of no use, and the fold ends.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "aggregate/json_tree.h"
#include "aggregate/reducer_program.h"

typedef enum OperationKind
{
	OP_ADD,
	OP_REPLACE,
	OP_REMOVE,
	OP_SET,
	OP_INCREMENT,
	OP_DECREMENT,
	OP_APPEND,
	OP_MERGE
} OperationKind;

/* One step of a pointer or a path. */
typedef struct Key
{
	const char *data;
	int			len;
} Key;

/* A place in the event. */
typedef struct Reference
{
	EventColumn column;
	char	   *text;			/* as written, for messages */
	int			nkeys;			/* the pointer behind payload or metadata */
	Key		   *keys;
} Reference;

/* One step of a path: a key, or where in the event to take it from. */
typedef struct Segment
{
	Key			key;
	Reference  *reference;		/* NULL: the key is literal */
} Segment;

typedef struct Operation
{
	OperationKind kind;
	int			number;			/* 1-based, for messages */
	char	   *path;			/* as written */
	int			nsegments;
	Segment    *segments;
	JsonbValue *literal;		/* at most one of these two */
	Reference  *reference;
	JsonNumber	amount;			/* of increment and decrement without reference */
	bool		optional;
} Operation;

struct ReducerProgram
{
	int			noperations;
	Operation  *operations;
};

/* What an operation is applied to. */
typedef struct Application
{
	const Operation *operation;
	const Event *event;
	const JsonbValue *operand;
	JsonNumber	amount;			/* the operand of increment and decrement, read */
	MemoryContext state_memory;
	JsonNode   *root;
} Application;

static const char *const operation_names[] = {
	[OP_ADD] = "add",
	[OP_REPLACE] = "replace",
	[OP_REMOVE] = "remove",
	[OP_SET] = "set",
	[OP_INCREMENT] = "increment",
	[OP_DECREMENT] = "decrement",
	[OP_APPEND] = "append",
	[OP_MERGE] = "merge",
};

/* 22023: names the operation. */
#define bad_operation(number, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), \
			 errmsg("operation %d is not valid", number), \
			 errdetail(__VA_ARGS__)))

/* QE102: names the operation; the fold adds event and stream. */
#define cannot_apply(application, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_OPERATION_FAILED), \
			 errmsg("operation %d (%s \"%s\") of the reducer for \"%s\" cannot be applied", \
					(application)->operation->number, \
					operation_names[(application)->operation->kind], \
					(application)->operation->path, \
					text_to_cstring(EventText((application)->event, EVENT_EVENT_TYPE))), \
			 errdetail(__VA_ARGS__)))

static void compile_operation(Operation *operation, JsonbContainer *object);
static void check_operation(const Operation *operation, bool has_op);
static OperationKind parse_kind(int number, const char *name);
static void parse_path(Operation *operation);
static Reference *parse_reference(int number, const char *text);
static int	split_pointer(int number, const char *text, const char *whole, Key **keys);
static char *parse_string(int number, const char *member, const JsonbValue *value);

static void apply(Application *application);
static JsonNode *find_parent(Application *application, Key *last);
static JsonNode *find_child(Application *application, JsonNode *node, Key key);
static void apply_to_member(Application *application, JsonNode *object, Key key);
static void apply_to_item(Application *application, JsonNode *array, Key key);
static JsonNode *apply_to_value(Application *application, JsonNode *value);
static JsonNode *new_value(Application *application);
static void add_operand(Application *application, JsonNumber *number);
static Key	event_key(Application *application, const Reference *reference);
static int	item_position(Application *application, const JsonNode *array, Key key,
						  bool may_append);
static bool makes_parents(OperationKind kind);
pg_noreturn static void wrong_type(const Application *application, const JsonNode *node,
								   const char *needed);
pg_noreturn static void no_member(const Application *application, Key key);
static bool resolve(const Event *event, const Reference *reference, JsonbValue *value);
static void event_field(const Event *event, EventColumn column, JsonbValue *value);

/*-------------------------------------------------------------------------
 * compiling
 *-------------------------------------------------------------------------
 */

/*
 * Compile operations, in the current memory context.  `operations` must live as
 * long as the program: literals point into it.  Raises 22023.
 */
ReducerProgram *
ReducerProgramCompile(Jsonb *operations)
{
	ReducerProgram *program = palloc0(sizeof(ReducerProgram));
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_ARRAY(operations) || JB_ROOT_IS_SCALAR(operations))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("operations must be a JSON array"),
				 errhint("Each element is an object: {\"op\": \"increment\", \"path\": \"/balance\", \"from\": \"/amount\"}.")));
	program->operations = palloc0(Max(JB_ROOT_COUNT(operations), 1) * sizeof(Operation));
	iterator = JsonbIteratorInit(&operations->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		Operation  *operation;

		if (token != WJB_ELEM)
			continue;
		operation = &program->operations[program->noperations++];
		operation->number = program->noperations;
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			bad_operation(operation->number, "It is not a JSON object.");
		compile_operation(operation, value.val.binary.data);
	}
	return program;
}

static void
compile_operation(Operation *operation, JsonbContainer *object)
{
	int			number = operation->number;
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *member = NULL;
	bool		has_op = false;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			member = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (strcmp(member, "op") == 0)
		{
			operation->kind = parse_kind(number, parse_string(number, member, &value));
			has_op = true;
		}
		else if (strcmp(member, "path") == 0)
			operation->path = parse_string(number, member, &value);
		else if (strcmp(member, "value") == 0)
		{
			operation->literal = palloc(sizeof(JsonbValue));
			*operation->literal = value;
		}
		else if (strcmp(member, "from") == 0)
			operation->reference = parse_reference(number, parse_string(number, member, &value));
		else if (strcmp(member, "optional") == 0)
		{
			if (value.type != jbvBool)
				bad_operation(number, "Its member \"optional\" must be true or false.");
			operation->optional = value.val.boolean;
		}
		else
			bad_operation(number, "It has an unknown member \"%s\".", member);
	}
	check_operation(operation, has_op);
	parse_path(operation);
	if (operation->kind == OP_INCREMENT || operation->kind == OP_DECREMENT)
		JsonTreeReadNumber(&operation->amount, operation->literal ?
						   operation->literal->val.numeric : int64_to_numeric(1));
}

static void
check_operation(const Operation *operation, bool has_op)
{
	int			number = operation->number;
	bool		has_operand = operation->literal || operation->reference;
	bool		counts = operation->kind == OP_INCREMENT || operation->kind == OP_DECREMENT;

	if (!has_op)
		bad_operation(number, "It has no member \"op\".");
	if (operation->path == NULL)
		bad_operation(number, "It has no member \"path\".");
	if (operation->literal && operation->reference)
		bad_operation(number, "It has both \"value\" and \"from\".");
	if (operation->kind == OP_REMOVE && has_operand)
		bad_operation(number, "\"remove\" takes neither \"value\" nor \"from\".");
	if (operation->kind != OP_REMOVE && !counts && !has_operand)
		bad_operation(number, "\"%s\" needs \"value\" or \"from\".", operation_names[operation->kind]);
	if (counts && operation->literal && operation->literal->type != jbvNumeric)
		bad_operation(number, "The value of \"%s\" must be a number.", operation_names[operation->kind]);
	if (operation->optional && operation->reference == NULL)
		bad_operation(number, "\"optional\" needs \"from\".");
	if (operation->kind == OP_REMOVE && operation->path[0] == '\0')
		bad_operation(number, "The whole state cannot be removed.");
}

static OperationKind
parse_kind(int number, const char *name)
{
	size_t		kind;

	for (kind = 0; kind < lengthof(operation_names); kind++)
		if (strcmp(name, operation_names[kind]) == 0)
			return (OperationKind) kind;
	bad_operation(number, "There is no operation \"%s\"; there are add, replace, remove, set, increment, decrement, append and merge.",
				  name);
}

/* Split the path; a segment in braces may contain slashes. */
static void
parse_path(Operation *operation)
{
	const char *rest = operation->path;
	int			max = 1;
	const char *c;

	if (*rest != '\0' && *rest != '/')
		bad_operation(operation->number, "Its path \"%s\" is not a JSON Pointer: it must be empty or begin with \"/\".",
					  operation->path);
	for (c = rest; *c; c++)
		max += *c == '/';
	operation->segments = palloc0(max * sizeof(Segment));
	while (*rest == '/')
	{
		Segment    *segment = &operation->segments[operation->nsegments++];
		const char *end;

		rest++;
		if (*rest == '{')
		{
			end = strchr(rest, '}');
			if (end == NULL || (end[1] != '\0' && end[1] != '/'))
				bad_operation(operation->number, "In its path \"%s\" a segment that begins with \"{\" must end with \"}\".",
							  operation->path);
			segment->reference = parse_reference(operation->number,
												 pnstrdup(rest + 1, end - rest - 1));
			rest = end + 1;
		}
		else
		{
			Key		   *keys;
			char	   *one;

			end = rest + strcspn(rest, "/");
			one = psprintf("/%s", pnstrdup(rest, end - rest));
			(void) split_pointer(operation->number, one, operation->path, &keys);
			segment->key = keys[0];
			rest = end;
		}
	}
}

/* "/pointer" into the payload, or a field of the event with or without pointer. */
static Reference *
parse_reference(int number, const char *given)
{
	Reference  *reference = palloc0(sizeof(Reference));
	const char *pointer = given + strcspn(given, "/");

	reference->text = pstrdup(given);
	reference->column = EVENT_PAYLOAD;
	if (pointer != given)
	{
		char	   *field = pnstrdup(given, pointer - given);
		int			column = EventColumnByName(field);

		if (column < 0)
			bad_operation(number, "An event has no field \"%s\"; a pointer into its payload begins with \"/\".",
						  field);
		reference->column = column;
		if (*pointer != '\0' && column != EVENT_PAYLOAD && column != EVENT_METADATA)
			bad_operation(number, "The field \"%s\" of an event has nothing below it.", field);
	}
	reference->nkeys = split_pointer(number, pointer, given, &reference->keys);
	return reference;
}

/* The unescaped keys of a JSON Pointer (RFC 6901). */
static int
split_pointer(int number, const char *given, const char *whole, Key **keys)
{
	int			n = 0;
	int			max = 1;
	const char *c;

	for (c = given; *c; c++)
		max += *c == '/';
	*keys = palloc(max * sizeof(Key));
	c = given;
	while (*c == '/')
	{
		char	   *key = palloc(strlen(c));
		int			len = 0;

		for (c++; *c && *c != '/'; c++)
		{
			if (*c == '~')
			{
				c++;
				if (*c != '0' && *c != '1')
					bad_operation(number, "In \"%s\" a \"~\" must be written \"~0\" (and \"/\" in a key \"~1\").",
								  whole);
				key[len++] = *c == '0' ? '~' : '/';
			}
			else
				key[len++] = *c;
		}
		key[len] = '\0';
		(*keys)[n].data = key;
		(*keys)[n++].len = len;
	}
	return n;
}

static char *
parse_string(int number, const char *member, const JsonbValue *value)
{
	if (value->type != jbvString)
		bad_operation(number, "Its member \"%s\" must be a string.", member);
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*-------------------------------------------------------------------------
 * running
 *-------------------------------------------------------------------------
 */

/*
 * Apply the operations to the state, which is taken over; returns the new
 * root.  The tree is in state_memory; the current memory context takes what
 * the event needs and should be reset after it.  Raises QE102, 22003.
 */
JsonNode *
ReducerProgramRun(const ReducerProgram *program, JsonNode *state, const Event *event,
				  MemoryContext state_memory)
{
	Application application = {
		.event = event,.state_memory = state_memory,.root = state
	};
	int			i;

	for (i = 0; i < program->noperations; i++)
	{
		const Operation *operation = &program->operations[i];
		JsonbValue	found;

		application.operation = operation;
		application.operand = operation->literal;
		if (operation->reference)
		{
			bool		exists = resolve(event, operation->reference, &found);

			if (operation->optional && (!exists || found.type == jbvNull))
				continue;
			if (!exists)
				cannot_apply(&application, "The event has no \"%s\".", operation->reference->text);
			application.operand = &found;
		}
		apply(&application);
	}
	return application.root;
}

static void
apply(Application *application)
{
	Key			key;
	JsonNode   *parent = find_parent(application, &key);
	MemoryContext caller = MemoryContextSwitchTo(application->state_memory);

	if (parent == NULL)
		application->root = apply_to_value(application, application->root);
	else if (parent->type == JSON_NODE_OBJECT)
		apply_to_member(application, parent, key);
	else if (parent->type == JSON_NODE_ARRAY)
		apply_to_item(application, parent, key);
	else
		wrong_type(application, parent, "an object or an array");
	MemoryContextSwitchTo(caller);
}

/*
 * The node that holds the last segment of the path, and that segment's key.
 * NULL when the path is empty.
 */
static JsonNode *
find_parent(Application *application, Key *last)
{
	const Segment *segment = application->operation->segments;
	const Segment *end = segment + application->operation->nsegments;
	JsonNode   *node = NULL;

	for (; segment < end; segment++)
	{
		node = node ? find_child(application, node, *last) : application->root;
		*last = segment->reference ? event_key(application, segment->reference) : segment->key;
	}
	return node;
}

/* A child on the way; some operations make it. */
static JsonNode *
find_child(Application *application, JsonNode *node, Key key)
{
	JsonNode  **member;
	JsonNode   *child;
	MemoryContext caller;

	if (node->type == JSON_NODE_ARRAY)
		return node->value.array.items[item_position(application, node, key, false)];
	if (node->type != JSON_NODE_OBJECT)
		wrong_type(application, node, "an object or an array");
	member = JsonTreeFind(node, key.data, key.len);
	if (member)
		return *member;
	if (!makes_parents(application->operation->kind))
		no_member(application, key);
	caller = MemoryContextSwitchTo(application->state_memory);
	child = JsonTreeNewObject();
	JsonTreePut(node, key.data, key.len, child);
	MemoryContextSwitchTo(caller);
	return child;
}

/*
 * The three below run in the state's memory.
 */

static void
apply_to_member(Application *application, JsonNode *object, Key key)
{
	OperationKind kind = application->operation->kind;
	JsonNode  **member = NULL;

	if (kind != OP_ADD && kind != OP_SET)
		member = JsonTreeFind(object, key.data, key.len);
	if (member == NULL && (kind == OP_REPLACE || kind == OP_REMOVE))
		no_member(application, key);

	if (kind == OP_REMOVE)
		(void) JsonTreeRemove(object, key.data, key.len);
	else if (member)
		*member = apply_to_value(application, *member);
	else
		JsonTreePut(object, key.data, key.len, new_value(application));
}

static void
apply_to_item(Application *application, JsonNode *array, Key key)
{
	OperationKind kind = application->operation->kind;
	bool		may_append = kind == OP_ADD || kind == OP_SET;
	int			position = item_position(application, array, key, may_append);

	if (kind == OP_REMOVE)
		JsonTreeRemoveItem(array, position);
	else if (kind == OP_ADD || position == array->value.array.n)
		JsonTreeInsertItem(array, position, new_value(application));
	else
		array->value.array.items[position] =
			apply_to_value(application, array->value.array.items[position]);
}

/* Change a value that is there; takes it over and returns what it has become. */
static JsonNode *
apply_to_value(Application *application, JsonNode *value)
{
	JsonNode   *result;

	switch (application->operation->kind)
	{
		case OP_INCREMENT:
		case OP_DECREMENT:
			if (value->type != JSON_NODE_NUMBER)
				wrong_type(application, value, "a number");
			add_operand(application, &value->value.number);
			return value;
		case OP_APPEND:
			if (value->type != JSON_NODE_ARRAY)
				wrong_type(application, value, "an array");
			JsonTreeInsertItem(value, value->value.array.n, JsonTreeFromValue(application->operand));
			return value;
		case OP_MERGE:
			return JsonTreeMerge(value, application->operand);
		default:
			result = new_value(application);
			JsonTreeFree(value);
			return result;
	}
}

/* What stands where nothing was. */
static JsonNode *
new_value(Application *application)
{
	JsonNode   *node;

	switch (application->operation->kind)
	{
		case OP_INCREMENT:
		case OP_DECREMENT:
			{
				JsonbValue	zero = {.type = jbvNumeric};

				zero.val.numeric = int64_to_numeric(0);
				node = JsonTreeFromValue(&zero);
				pfree(zero.val.numeric);
				return apply_to_value(application, node);
			}
		case OP_APPEND:
			return apply_to_value(application, JsonTreeNewArray());
		case OP_MERGE:
			return JsonTreeMerge(NULL, application->operand);
		default:
			return JsonTreeFromValue(application->operand);
	}
}

/* Count up or down: by what the event says, or by what the operation does. */
static void
add_operand(Application *application, JsonNumber *number)
{
	const Operation *operation = application->operation;
	const JsonNumber *amount = &operation->amount;

	if (operation->reference)
	{
		if (application->operand->type != jbvNumeric)
			cannot_apply(application, "\"%s\" of the event is not a number.",
						 operation->reference->text);
		JsonTreeReadNumber(&application->amount, application->operand->val.numeric);
		amount = &application->amount;
	}
	JsonTreeAddNumber(number, amount, operation->kind == OP_DECREMENT);
}

/* A key that is taken from the event, where it may be a string or a number. */
static Key
event_key(Application *application, const Reference *reference)
{
	JsonbValue	value;
	Key			key;

	if (!resolve(application->event, reference, &value))
		cannot_apply(application, "The event has no \"%s\".", reference->text);
	if (value.type == jbvString)
	{
		key.data = value.val.string.val;
		key.len = value.val.string.len;
	}
	else if (value.type == jbvNumeric)
	{
		key.data = numeric_normalize(value.val.numeric);
		key.len = strlen(key.data);
	}
	else
		cannot_apply(application, "\"%s\" of the event is neither a string nor a number.",
					 reference->text);
	return key;
}

/* An index of the array (RFC 6901: no sign, no leading zero); "-" is the end. */
static int
item_position(Application *application, const JsonNode *array, Key key, bool may_append)
{
	int			n = array->value.array.n;
	int			position = 0;
	int			i;

	if (may_append && key.len == 1 && key.data[0] == '-')
		return n;
	if (key.len == 0 || (key.len > 1 && key.data[0] == '0'))
		cannot_apply(application, "\"%s\" is not an index of an array.", pnstrdup(key.data, key.len));
	for (i = 0; i < key.len; i++)
	{
		if (key.data[i] < '0' || key.data[i] > '9')
			cannot_apply(application, "\"%s\" is not an index of an array.", pnstrdup(key.data, key.len));
		if (pg_mul_s32_overflow(position, 10, &position) ||
			pg_add_s32_overflow(position, key.data[i] - '0', &position))
			position = PG_INT32_MAX;
	}
	if (position > n || (position == n && !may_append))
		cannot_apply(application, "Index %s is out of range in an array of length %d.",
					 pnstrdup(key.data, key.len), n);
	return position;
}

static bool
makes_parents(OperationKind kind)
{
	return kind == OP_SET || kind == OP_INCREMENT || kind == OP_DECREMENT ||
		kind == OP_APPEND || kind == OP_MERGE;
}

/*
 * What the reference finds in the event; false for nothing.  The value points
 * into the event or the current memory context.
 */
static bool
resolve(const Event *event, const Reference *reference, JsonbValue *value)
{
	int			i;

	event_field(event, reference->column, value);
	for (i = 0; i < reference->nkeys; i++)
	{
		JsonbContainer *container;
		Key			key = reference->keys[i];

		if (value->type != jbvBinary)
			return false;
		container = value->val.binary.data;
		if (JsonContainerIsObject(container))
		{
			if (getKeyJsonValueFromContainer(container, key.data, key.len, value) == NULL)
				return false;
		}
		else
		{
			char	   *end;
			unsigned long position;
			JsonbValue *item;

			if (key.data[0] < '0' || key.data[0] > '9' || (key.data[0] == '0' && key.len > 1))
				return false;
			errno = 0;
			position = strtoul(key.data, &end, 10);
			if (errno != 0 || *end != '\0' || position > PG_UINT32_MAX)
				return false;
			item = getIthJsonbValueFromContainer(container, (uint32) position);
			if (item == NULL)
				return false;
			*value = *item;
		}
	}
	return true;
}

/*
 * A column of the event as a JSON value, the way to_jsonb writes it; times are in
 * UTC whatever the session's time zone, since the state is everybody's.
 */
static void
event_field(const Event *event, EventColumn column, JsonbValue *value)
{
	static const int utc = 0;
	Datum		datum = event->values[column];

	switch (column)
	{
		case EVENT_PAYLOAD:
		case EVENT_METADATA:
			JsonTreeDocumentValue(DatumGetJsonbP(datum), value);
			return;
		case EVENT_GLOBAL_POSITION:
		case EVENT_SEQUENCE:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(DatumGetInt64(datum));
			return;
		case EVENT_CREATED_AT:
			value->val.string.val = JsonEncodeDateTime(NULL, datum, TIMESTAMPTZOID, &utc);
			break;
		case EVENT_EVENT_ID:
			value->val.string.val = DatumGetCString(DirectFunctionCall1(uuid_out, datum));
			break;
		default:
			value->val.string.val = TextDatumGetCString(datum);
	}
	value->type = jbvString;
	value->val.string.len = strlen(value->val.string.val);
}

/*-------------------------------------------------------------------------
 * why an operation cannot be applied
 *-------------------------------------------------------------------------
 */

static void
wrong_type(const Application *application, const JsonNode *node, const char *needed)
{
	cannot_apply(application, "There is %s where %s is needed.", JsonTreeTypeName(node), needed);
}

static void
no_member(const Application *application, Key key)
{
	cannot_apply(application, "There is no member \"%s\".", pnstrdup(key.data, key.len));
}
