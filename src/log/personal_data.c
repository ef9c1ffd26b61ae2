/*-------------------------------------------------------------------------
 * personal_data.c
 *	  Members of payloads that are stored encrypted, under a key of whom they are about.
 *
 * A definition says of an event type which members these are, and where in the payload it stands
 * whom they are about, the subject.  What is appended from then on is stored with a text in the place of
 * each: a mark, and in base64 the id of the key (subject_key.c) and what was sealed with it
 * (aead.c).  Sealed is the JSON text of the value, filled up with blanks, so that its length tells little;
 * it is bound to stream, type and id of the event and to the member, so it cannot be moved.  Nothing else
 * of the log knows: seals, dumps, replicas, the table itself have what is stored.
 *
 * It is encrypted where the append begins, before the end of a stream is looked at.  All that follows
 * in the transaction is told of the events as they were sent.  What is read from the log is opened by who
 * works with it: folds, handlers, the look for a retry, whoever calls, for a state must be the
 * same whoever was the first to fold it.  Who hands events or states out asks whether the caller may see
 * them (PersonalDataSeenBy), and else shows null.
 *
 * A value that looks as if it were encrypted is not let in, so the two are never taken for each other, and
 * what was opened is left alone.
 *
 * Members that were once in a definition stay in it as past ones, to be opened.  Where one is in another
 * the inner is opened first: what is in one that was encrypted as a whole is no mark of ours.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "common/base64.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/typcache.h"

#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/master_key.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/events.h"
#include "log/personal_data.h"
#include "log/reserved_type.h"
#include "log/subject_key.h"
#include "log/tenants.h"

/* how the text of an encrypted member begins */
#define MARK			"$personal:1:"
#define MARK_LENGTH		((int) sizeof(MARK) - 1)

/* lengths are multiples of this */
#define PADDING			32

/* A member, of now or once. */
typedef struct Member
{
	char	   *pointer;
	JsonPointer path;
	bool		is_past;
} Member;

typedef struct Definition
{
	text	   *event_type;
	JsonPointer subject;
	int			n;
	Member	   *members;		/* of two that overlap the inner one first */
} Definition;

/* All definitions, which are few. */
typedef struct Definitions
{
	RegistryEntry entry;		/* the only one */
	int			n;
	Definition *definitions;
} Definitions;

static void load(void *entry, const text *key, MemoryContext memory);

static RegistryCache definition_cache = {
	.name = "cqrs_es personal data",.entry_size = sizeof(Definitions),.load = load,
	.table = "personal_data"
};

static PersonalDataCheck check_others = NULL;

/* in this generation of the registries there are no definitions */
static uint64 none_in_generation = 0;

PG_FUNCTION_INFO_V1(cqrs_es_define_personal_data);
PG_FUNCTION_INFO_V1(cqrs_es_drop_personal_data);
PG_FUNCTION_INFO_V1(cqrs_es_reveal_personal_data);

static void pointer_arg(const char *what, char *source, JsonPointer *pointer);
static Datum members_arg(NullableDatum arg, const JsonPointer *subject, JsonPointer **paths, int *n);
static void add_members(Definition *definition, ArrayType *pointers, bool is_past);
static int	by_depth(const void *a, const void *b);
static const Definition *definition_for(const Event *event);
static const Definition *definition_of(const text *event_type);
static inline bool none_is_known(void);
static const Definitions *definitions_if_any(void);
static text *subject_of(const Definition *definition, const Event *event);
static bool is_marked(const JsonbValue *value);
static int	decode(const JsonbValue *value, char **sealed);
static bool is_sealed_by(const JsonbValue *value, const pg_uuid_t *keys, int nkeys);
static int	by_text(const ListCell *a, const ListCell *b);
static Jsonb *seal(const Event *event, const Member *member, const SubjectKey *key, JsonbValue *value);
static Jsonb *unseal(const Event *event, const Member *member, const JsonbValue *value);
static StringInfoData about_member(const Event *event, const Member *member);
static void change_members(Event *event, bool sees);
static char *removal_hint(const Event *event);
pg_noreturn static void report_unfit(const Event *event, const Member *member, const char *detail, const char *hint);

void
PersonalDataInit(void)
{
	RegistryRegister("personal_data");
}

/* Who is asked before members are defined; called by an Init only. */
void
PersonalDataSetCheck(PersonalDataCheck check)
{
	check_others = check;
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: define_personal_data(event_type, subject, members) */
Datum
cqrs_es_define_personal_data(PG_FUNCTION_ARGS)
{
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.personal_data WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND subject OPERATOR(pg_catalog.=) $2 AND members OPERATOR(pg_catalog.=) $3",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTARRAYOID}
	};
	static InternalQuery define = {
		.sql = "INSERT INTO cqrs_es.personal_data AS d (event_type, subject, members) VALUES ($1, $2, $3)"
		" ON CONFLICT (event_type) DO UPDATE SET subject = excluded.subject, members = excluded.members,"
		" past_members = ARRAY(SELECT DISTINCT m FROM pg_catalog.unnest(d.past_members OPERATOR(pg_catalog.||) d.members) AS m"
		" WHERE NOT m OPERATOR(pg_catalog.=) ANY (excluded.members) ORDER BY m)",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTARRAYOID}
	};
	text	   *event_type = TextArgument(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	text	   *subject = TextArgument(fcinfo->args[1], "subject", SUBJECT_MAX_BYTES);
	JsonPointer subject_path;
	JsonPointer *members;
	int			n;
	Datum		values[3];

	ReadOnlyPrevent(fcinfo);
	ReservedTypeRefuse(event_type);
	pointer_arg("subject", text_to_cstring(subject), &subject_path);
	values[0] = PointerGetDatum(event_type);
	values[1] = PointerGetDatum(subject);
	values[2] = members_arg(fcinfo->args[2], &subject_path, &members, &n);
	if (RegistryHas(&same, values, NULL))
		PG_RETURN_VOID();
	EventsRefuseDistributed("define_personal_data()");
	AeadRequire();
	(void) MasterKeyCurrent();
	LockRelationOid(ExtensionRelid("personal_data"), ShareRowExclusiveLock);
	check_others(event_type, members, n);
	/* who appends looks at the definitions behind his lock on the log */
	EventsLockOutWriters();
	(void) RegistryWrite(&define, values, NULL);
	PG_RETURN_VOID();
}

/* SQL: drop_personal_data(event_type, if_exists) */
Datum
cqrs_es_drop_personal_data(PG_FUNCTION_ARGS)
{
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.personal_data WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND members OPERATOR(pg_catalog.<>) '{}'",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "UPDATE cqrs_es.personal_data SET members = '{}', past_members = ARRAY(SELECT DISTINCT m"
		" FROM pg_catalog.unnest(past_members OPERATOR(pg_catalog.||) members) AS m ORDER BY m)"
		" WHERE event_type OPERATOR(pg_catalog.=) $1 AND members OPERATOR(pg_catalog.<>) '{}'",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *event_type = TextArgument(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		value = PointerGetDatum(event_type);

	ReadOnlyPrevent(fcinfo);
	if (!RegistryDrop(&row, &drop, &value))
		RegistryReportMissing(RegistryIfExists(fcinfo->args[1]), ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("no personal data are defined for event type \"%s\"",
									   text_to_cstring(event_type)));
	PG_RETURN_VOID();
}

/* SQL: reveal_personal_data(event), which is to be executed by whom sees them. */
Datum
cqrs_es_reveal_personal_data(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	HeapTupleData row = {.t_len = HeapTupleHeaderGetDatumLength(header),.t_data = header};
	Event		event = {.row = NULL};
	bool		nulls[EVENT_NCOLUMNS];
	bool		is_whole = desc->natts == EVENT_NCOLUMNS;
	int			column;

	if (is_whole)
		heap_deform_tuple(&row, desc, event.values, nulls);
	for (column = 0; is_whole && column < EVENT_NCOLUMNS; column++)
		is_whole = !nulls[column];
	ReleaseTupleDesc(desc);
	if (!is_whole)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event must be one without nulls")));
	/* row security kept the event from him, but perhaps not a copy of it */
	if (!TextEqual(EventText(&event, EVENT_TENANT_ID), TenancyCurrent()))
		TenantsRequireAll();
	RegistryEnter();
	PersonalDataOpen(&event);
	RegistryLeave();
	PG_RETURN_DATUM(EventToComposite(&event));
}

/* Raises 22023. */
static void
pointer_arg(const char *what, char *source, JsonPointer *pointer)
{
	if (!JsonPointerParse(pointer, source) || pointer->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" is no JSON pointer to something in a payload", what, source),
				 errhint("Write '/name' or '/address/street'; in a key ~ is written as ~0, and / as ~1.")));
}

/* The members, sorted, and their paths.  Raises 22004, 22023, 2202E. */
static Datum
members_arg(NullableDatum arg, const JsonPointer *subject, JsonPointer **paths, int *n)
{
	ArrayType  *array;
	Datum	   *datums;
	bool	   *nulls;
	int			i;
	int			j;

	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("members must not be null")));
	array = DatumGetArrayTypeP(arg.value);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("members must be a one-dimensional array")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &datums, &nulls, n);
	if (*n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("members must not be empty"),
				 errhint("drop_personal_data() ends a definition.")));
	*paths = palloc(*n * sizeof(JsonPointer));
	for (i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a member must not be null")));
		pointer_arg("member", TextDatumGetCString(datums[i]), &(*paths)[i]);
		for (j = -1; j < i; j++)
		{
			const JsonPointer *other = j < 0 ? subject : &(*paths)[j];

			if (JsonPointerOverlaps(other, &(*paths)[i]))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("member \"%s\" overlaps %s", TextDatumGetCString(datums[i]),
								j < 0 ? "the subject" : psprintf("member \"%s\"", TextDatumGetCString(datums[j]))),
						 j < 0 ? errdetail("The subject is stored in clear.") : 0));
		}
	}
	return PointerGetDatum(array);
}

/*-------------------------------------------------------------------------
 * definitions
 *-------------------------------------------------------------------------
 */

/* Fill the cache. */
static void
load(void *entry, const text *key, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT event_type, subject, members, past_members FROM cqrs_es.personal_data"
	};
	Definitions *all = entry;
	uint64		n = RegistryRead(&query, NULL);
	uint64		i;

	all->definitions = MemoryContextAllocZero(memory, Max(n, 1) * sizeof(Definition));
	for (i = 0; i < n; i++)
	{
		Definition *definition = &all->definitions[i];
		QueryRow	row = InternalQueryRow(i);
		MemoryContext spi = MemoryContextSwitchTo(memory);

		definition->event_type = InternalQueryTextCopy(&row, "event_type");
		if (!JsonPointerParse(&definition->subject, InternalQueryText(&row, "subject")))
			elog(ERROR, "\"%s\" is no JSON pointer", InternalQueryText(&row, "subject"));
		add_members(definition, DatumGetArrayTypePCopy(InternalQueryDatum(&row, "members", NULL)), false);
		add_members(definition, DatumGetArrayTypePCopy(InternalQueryDatum(&row, "past_members", NULL)), true);
		qsort(definition->members, definition->n, sizeof(Member), by_depth);
		MemoryContextSwitchTo(spi);
	}
	all->n = (int) n;
}

/* In the current memory context. */
static void
add_members(Definition *definition, ArrayType *pointers, bool is_past)
{
	Datum	   *datums;
	int			n;
	int			i;

	deconstruct_array(pointers, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
	definition->members = definition->members ?
		repalloc(definition->members, (definition->n + n + 1) * sizeof(Member)) :
		palloc((n + 1) * sizeof(Member));
	for (i = 0; i < n; i++)
	{
		Member	   *member = &definition->members[definition->n++];

		member->pointer = TextDatumGetCString(datums[i]);
		member->is_past = is_past;
		if (!JsonPointerParse(&member->path, member->pointer) || member->path.nkeys == 0)
			elog(ERROR, "\"%s\" is no JSON pointer", member->pointer);
	}
}

static int
by_depth(const void *a, const void *b)
{
	return ((const Member *) b)->path.nkeys - ((const Member *) a)->path.nkeys;
}

/* The definition for an event; where there are none, as in most databases, the event is not looked at. */
static const Definition *
definition_for(const Event *event)
{
	return none_is_known() ? NULL : definition_of(EventText(event, EVENT_EVENT_TYPE));
}

/* NULL for most event types; good as long as an entry of the cache is (registry.c). */
static const Definition *
definition_of(const text *event_type)
{
	const Definitions *all = definitions_if_any();
	int			i;

	for (i = 0; all && i < all->n; i++)
		if (TextEqual(all->definitions[i].event_type, event_type))
			return &all->definitions[i];
	return NULL;
}

/* Has it been found out that there are none, and has nothing been declared since? */
static inline bool
none_is_known(void)
{
	return none_in_generation == RegistryGeneration();
}

/* All definitions, NULL when there are none: once per generation that is found out. */
static const Definitions *
definitions_if_any(void)
{
	uint64		generation;
	const Definitions *all;
	bool		is_empty;

	if (none_is_known())
		return NULL;
	generation = RegistryGeneration();
	/* who finds none needs nothing to stay until the transaction ends */
	RegistryEnter();
	all = RegistryLookup(&definition_cache, NULL);
	is_empty = all->n == 0;
	RegistryLeave();
	if (!is_empty)
		return RegistryLookup(&definition_cache, NULL);
	none_in_generation = generation;
	return NULL;
}

/* Has the event's type members that are, or once were, encrypted? */
bool
PersonalDataConcerns(const Event *event)
{
	return definition_for(event) != NULL;
}

/* SQL, palloc'd: is the expression an event type with such members? */
char *
PersonalDataCondition(const char *event_type)
{
	const Definitions *all = definitions_if_any();
	StringInfoData condition;
	int			i;

	initStringInfo(&condition);
	appendStringInfoString(&condition, "false");
	for (i = 0; all && i < all->n; i++)
		appendStringInfo(&condition, " OR %s = %s", event_type,
						 quote_literal_cstr(text_to_cstring(all->definitions[i].event_type)));
	return condition.data;
}

/* Nobody defines personal data from now on until the transaction ends. */
void
PersonalDataLock(void)
{
	LockRelationOid(ExtensionRelid("personal_data"), RowExclusiveLock);
}

/* Is something of a payload that the path leads to, or that it is in, encrypted, or once was? */
bool
PersonalDataHas(const text *event_type, const JsonPointer *path)
{
	const Definition *definition;
	bool		result = false;
	int			i;

	RegistryEnter();
	definition = definition_of(event_type);
	for (i = 0; definition && i < definition->n && !result; i++)
		result = JsonPointerOverlaps(&definition->members[i].path, path);
	RegistryLeave();
	return result;
}

/* JSON pointers into events, text[], to all that is encrypted, or once was. */
ArrayType *
PersonalDataPointers(void)
{
	const Definitions *all = definitions_if_any();
	List	   *pointers = NIL;
	Datum	   *datums;
	ListCell   *lc;
	int			i;
	int			j;

	for (i = 0; all && i < all->n; i++)
		for (j = 0; j < all->definitions[i].n; j++)
			pointers = lappend(pointers, psprintf("/payload%s", all->definitions[i].members[j].pointer));
	list_sort(pointers, by_text);
	datums = palloc((list_length(pointers) + 1) * sizeof(Datum));
	i = 0;
	foreach(lc, pointers)
		if (i == 0 || strcmp(TextDatumGetCString(datums[i - 1]), lfirst(lc)) != 0)
		datums[i++] = CStringGetTextDatum(lfirst(lc));
	return construct_array(datums, i, TEXTOID, -1, false, TYPALIGN_INT);
}

static int
by_text(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/*
 * A subject is being forgotten, whose keys these were: was there anything of it in the event?  *after
 * becomes the event without what was stored in clear, before that was personal; where that is
 * nothing its payload is the same Datum.
 */
bool
PersonalDataLose(const Event *event, const text *subject, const pg_uuid_t *keys, int nkeys, Event *after)
{
	const Definition *definition = definition_for(event);
	text	   *its_subject = definition ? subject_of(definition, event) : NULL;
	bool		is_about = its_subject && TextEqual(its_subject, subject);
	bool		found = false;
	Jsonb	   *payload;
	int			i;

	*after = *event;
	after->row = NULL;
	if (definition == NULL)
		return false;
	payload = DatumGetJsonbP(event->values[EVENT_PAYLOAD]);
	for (i = 0; i < definition->n; i++)
	{
		const Member *member = &definition->members[i];
		JsonbValue	value;

		if (!JsonPointerFind(&member->path, payload, &value) || value.type == jbvNull)
			continue;
		if (is_marked(&value))
			found |= is_sealed_by(&value, keys, nkeys);
		else if (is_about)
		{
			value.type = jbvNull;
			payload = JsonPointerReplace(&member->path, payload, JsonbValueToJsonb(&value));
			after->values[EVENT_PAYLOAD] = JsonbPGetDatum(payload);
			found = true;
		}
	}
	return found;
}

static bool
is_sealed_by(const JsonbValue *value, const pg_uuid_t *keys, int nkeys)
{
	char	   *sealed;
	int			i;

	if (decode(value, &sealed) < UUID_LEN)
		return false;
	for (i = 0; i < nkeys; i++)
		if (memcmp(sealed, keys[i].data, UUID_LEN) == 0)
			return true;
	return false;
}

/*-------------------------------------------------------------------------
 * who may see
 *-------------------------------------------------------------------------
 */

/* May the role see personal data?  Who may execute reveal_personal_data() may. */
bool
PersonalDataSeenBy(Oid role)
{
	Oid			argtype = EventsTypeOid();
	Oid			function = LookupFuncName(list_make2(makeString(CQRS_ES_SCHEMA),
													 makeString("reveal_personal_data")),
										  1, &argtype, true);
	bool		is_missing = false;

	return OidIsValid(function) &&
		compat_proc_aclcheck(function, role, ACL_EXECUTE, &is_missing) == ACLCHECK_OK;
}

/* Are there any that the role may not see? */
bool
PersonalDataHides(Oid role)
{
	bool		has_any;

	RegistryEnter();
	has_any = definitions_if_any() != NULL;
	RegistryLeave();
	return has_any && !PersonalDataSeenBy(role);
}

/*-------------------------------------------------------------------------
 * on the way in
 *-------------------------------------------------------------------------
 */

/*
 * Encrypt what is personal in the events of a request: fills in append->stored, where there is any.
 * Behind RowExclusiveLock on the log, before anything of a stream is looked at; takes the slots of the
 * subjects.  Raises QE701, QE702, QE703.
 */
void
PersonalDataProtect(AppendRequest *append)
{
	int			i;

	append->stored = NULL;
	if (none_is_known())
		return;
	RegistryEnter();
	if (definitions_if_any() == NULL)
	{
		RegistryLeave();
		return;
	}
	for (i = 0; i < append->nevents; i++)
	{
		Event	   *event = &append->events[i];
		Datum		payload = event->values[EVENT_PAYLOAD];
		Datum		stored = PersonalDataProtected(event);
		int			j;

		if (append->stored == NULL && stored != payload)
		{
			append->stored = MemoryContextAllocHuge(CurrentMemoryContext, (Size) append->nevents * sizeof(Datum));
			for (j = 0; j < i; j++)
				append->stored[j] = append->events[j].values[EVENT_PAYLOAD];
		}
		if (append->stored)
			append->stored[i] = stored;
	}
	RegistryLeave();
}

/*
 * The payload of an event that is about to be appended as it is to be stored: the same, or another
 * one, palloc'd.  Of the event it needs stream, type, id and payload.  Otherwise as PersonalDataProtect.
 */
Datum
PersonalDataProtected(const Event *event)
{
	const Definition *definition;
	Jsonb	   *payload;
	Jsonb	   *stored;
	SubjectKey	key;
	bool		has_key = false;
	int			i;

	RegistryEnter();
	definition = definition_for(event);
	if (definition == NULL)
	{
		RegistryLeave();
		return event->values[EVENT_PAYLOAD];
	}
	payload = DatumGetJsonbP(event->values[EVENT_PAYLOAD]);
	stored = payload;
	for (i = 0; i < definition->n; i++)
	{
		const Member *member = &definition->members[i];
		JsonbValue	value;

		if (!JsonPointerFind(&member->path, payload, &value) || value.type == jbvNull)
			continue;
		if (is_marked(&value))
			report_unfit(event, member, "It begins as if it were encrypted.",
						 "Append what it is in clear. An event of another log is brought here with its position, as a row of the table.");
		if (member->is_past)
			continue;
		if (!has_key)
		{
			text	   *subject = subject_of(definition, event);
			StreamKey	stream;

			if (subject == NULL)
				report_unfit(event, member, "The payload does not say whom it is about: a string or a number of at most 255 bytes.", NULL);
			EventKey(event, &stream);
			SubjectKeyLock(stream.tenant_id, subject, false);
			SubjectKeyForEvents(&stream, subject, &key);
			has_key = true;
		}
		stored = JsonPointerReplace(&member->path, stored, seal(event, member, &key, &value));
	}
	RegistryLeave();
	if (has_key)
		explicit_bzero(&key, sizeof(key));
	return stored == payload ? event->values[EVENT_PAYLOAD] : JsonbPGetDatum(stored);
}

/* Whom is the event about?  NULL when it does not say.  1.0 is nobody else than 1, as in JSON. */
static text *
subject_of(const Definition *definition, const Event *event)
{
	JsonbValue	value;
	text	   *subject = NULL;

	if (!JsonPointerFind(&definition->subject, DatumGetJsonbP(event->values[EVENT_PAYLOAD]), &value))
		return NULL;
	if (value.type == jbvString)
		subject = cstring_to_text_with_len(value.val.string.val, value.val.string.len);
	else if (value.type == jbvNumeric)
		subject = cstring_to_text(numeric_normalize(value.val.numeric));
	if (subject == NULL || VARSIZE_ANY_EXHDR(subject) == 0 || VARSIZE_ANY_EXHDR(subject) > SUBJECT_MAX_BYTES)
		return NULL;
	return subject;
}

static bool
is_marked(const JsonbValue *value)
{
	return value->type == jbvString && value->val.string.len >= MARK_LENGTH &&
		memcmp(value->val.string.val, MARK, MARK_LENGTH) == 0;
}

/* What stands behind the mark, palloc'd; its length, -1 when it is no base64. */
static int
decode(const JsonbValue *value, char **sealed)
{
	int			size = value->val.string.len - MARK_LENGTH;

	*sealed = palloc(pg_b64_dec_len(size) + 1);
	return pg_b64_decode(value->val.string.val + MARK_LENGTH, size,
						 (compat_base64_byte *) *sealed, pg_b64_dec_len(size) + 1);
}

/* What is stored of a value. */
static Jsonb *
seal(const Event *event, const Member *member, const SubjectKey *key, JsonbValue *value)
{
	StringInfoData about = about_member(event, member);
	StringInfoData plain;
	Jsonb	   *json = JsonbValueToJsonb(value);
	JsonbValue	result = {.type = jbvString};
	char	   *sealed;
	int			length;
	int			size;

	initStringInfo(&plain);
	(void) JsonbToCString(&plain, &json->root, VARSIZE(json));
	appendStringInfoSpaces(&plain, PADDING - 1 - (plain.len + PADDING - 1) % PADDING);
	length = UUID_LEN + plain.len + AEAD_OVERHEAD;
	sealed = palloc(length);
	memcpy(sealed, key->id.data, UUID_LEN);
	AeadSeal(key->key, &about, plain.data, plain.len, (uint8 *) sealed + UUID_LEN);
	size = MARK_LENGTH + pg_b64_enc_len(length) + 1;
	result.val.string.val = palloc(size);
	memcpy(result.val.string.val, MARK, MARK_LENGTH);
	result.val.string.len = MARK_LENGTH +
		pg_b64_encode((compat_base64_byte *) sealed, length, result.val.string.val + MARK_LENGTH, size - MARK_LENGTH);
	explicit_bzero(plain.data, plain.len);
	return JsonbValueToJsonb(&result);
}

/* To what is sealed bound, beside its key? */
static StringInfoData
about_member(const Event *event, const Member *member)
{
	const text *tenant_id = EventText(event, EVENT_TENANT_ID);
	const text *aggregate_type = EventText(event, EVENT_AGGREGATE_TYPE);
	const text *aggregate_id = EventText(event, EVENT_AGGREGATE_ID);
	const text *event_type = EventText(event, EVENT_EVENT_TYPE);
	StringInfoData about;

	initStringInfo(&about);
	AeadAddTo(&about, "member", 6);
	AeadAddTo(&about, VARDATA_ANY(tenant_id), VARSIZE_ANY_EXHDR(tenant_id));
	AeadAddTo(&about, VARDATA_ANY(aggregate_type), VARSIZE_ANY_EXHDR(aggregate_type));
	AeadAddTo(&about, VARDATA_ANY(aggregate_id), VARSIZE_ANY_EXHDR(aggregate_id));
	AeadAddTo(&about, VARDATA_ANY(event_type), VARSIZE_ANY_EXHDR(event_type));
	AeadAddTo(&about, DatumGetUUIDP(event->values[EVENT_EVENT_ID])->data, UUID_LEN);
	AeadAddTo(&about, member->pointer, strlen(member->pointer));
	return about;
}

/*-------------------------------------------------------------------------
 * on the way out
 *-------------------------------------------------------------------------
 */

/*
 * Open what is encrypted in an event, for what works in the database, whoever calls; what is gone becomes
 * null, and what is not encrypted stays.  The new payload is palloc'd in the current memory context.
 * Raises QE701 when a key is not there, QE703 when something has been put where it does not belong.
 */
void
PersonalDataOpen(Event *event)
{
	change_members(event, true);
}

/* The same for an event that is handed out to the current role; to who does not see them they are null. */
void
PersonalDataShow(Event *event)
{
	if (PersonalDataConcerns(event))
		change_members(event, PersonalDataSeenBy(GetUserId()));
}

/* All these members become null, be they stored encrypted or in clear. */
void
PersonalDataHide(Event *event)
{
	change_members(event, false);
}

static void
change_members(Event *event, bool sees)
{
	const Definition *definition = definition_for(event);
	Jsonb	   *before;
	Jsonb	   *payload;
	int			i;

	if (definition == NULL)
		return;
	before = DatumGetJsonbP(event->values[EVENT_PAYLOAD]);
	payload = before;
	for (i = 0; i < definition->n; i++)
	{
		const Member *member = &definition->members[i];
		JsonbValue	value;

		if (!JsonPointerFind(&member->path, payload, &value) || value.type == jbvNull)
			continue;
		if (!sees && (is_marked(&value) || !member->is_past))
		{
			value.type = jbvNull;
			payload = JsonPointerReplace(&member->path, payload, JsonbValueToJsonb(&value));
		}
		else if (is_marked(&value))
			payload = JsonPointerReplace(&member->path, payload, unseal(event, member, &value));
	}
	if (payload == before)
		return;
	event->values[EVENT_PAYLOAD] = JsonbPGetDatum(payload);
	event->row = NULL;
}

/* What was stored for this member of this event. */
static Jsonb *
unseal(const Event *event, const Member *member, const JsonbValue *value)
{
	char	   *sealed;
	int			length = decode(value, &sealed);
	StringInfoData about = about_member(event, member);
	JsonbValue	gone = {.type = jbvNull};
	uint8		key[AEAD_KEY_LENGTH];
	pg_uuid_t	id;
	char	   *plain;
	bool		is_open;

	if (length < UUID_LEN + AEAD_OVERHEAD)
		report_unfit(event, member, "It is not what was stored there.", removal_hint(event));
	memcpy(id.data, sealed, UUID_LEN);
	switch (SubjectKeyFind(&id, key))
	{
		case SUBJECT_KEY_THERE:
			break;
		case SUBJECT_KEY_FORGOTTEN:
			return JsonbValueToJsonb(&gone);
		case SUBJECT_KEY_MISSING:
			ereport(ERROR,
					(errcode(ERRCODE_KEY_UNAVAILABLE),
					 errmsg("the key of personal data in the event at position %lld is not there",
							(long long) EventGlobalPosition(event)),
					 errdetail("It was not forgotten: table \"%s\" has no row of it.", "personal_data_keys"),
					 errhint("Restore that table, too.")));
	}
	plain = palloc0(length - UUID_LEN - AEAD_OVERHEAD + 1);
	is_open = AeadOpen(key, &about, (uint8 *) sealed + UUID_LEN, length - UUID_LEN, plain);
	explicit_bzero(key, sizeof(key));
	if (!is_open)
		report_unfit(event, member, "It is not what was stored there.", removal_hint(event));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(plain)));
}

/* The message names no event. */
static char *
removal_hint(const Event *event)
{
	return psprintf("redact_event(%lld, ...) removes it.", (long long) EventGlobalPosition(event));
}

/* QE703; says nothing of the value. */
static void
report_unfit(const Event *event, const Member *member, const char *detail, const char *hint)
{
	StreamKey	key;

	EventKey(event, &key);
	ereport(ERROR,
			(errcode(ERRCODE_PERSONAL_DATA_UNFIT),
			 errmsg("personal data at \"%s\" of an event of type \"%s\" in stream \"%s\" are unfit", member->pointer,
					text_to_cstring(EventText(event, EVENT_EVENT_TYPE)), StreamKeyName(&key)),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}
