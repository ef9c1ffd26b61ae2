/*-------------------------------------------------------------------------
 * tag_definition.c
 *	  Which tags events get from their payload, by their type.
 *
 * Whoever decides by a tag relies on it that each event which ought to have it has it.  So
 * an event gets the tags that are defined at one moment for all: when its transaction
 * has RowExclusiveLock on the log.  Who changes a definition waits for all who have that
 * (ShareRowExclusiveLock), and nobody gets it before the change is committed; the
 * registry is looked up behind it.  First it waits for those who write at the moment without
 * standing in the way of others (lock_holders.c).
 *
 * Behind that lock it is also known which events were there before: those up to the last
 * number drawn, and to the end of the log, which restored or replicated events may have taken
 * beyond that; history_to is the later one.  Whether any of them is of the type is looked for before,
 * beside writers, for what is settled then; behind the lock only for what has come
 * since.  If there is one, it may lack the tags, and nobody may ask for them before retag
 * has made the definition complete (retag.c).  Those who follow the log by tags, and have passed such
 * an event, will not get it: they are named (TagFollowers).  Where there may be some, the first
 * event of the type is looked for beside writers, too.
 *
 * A type without templates is known all the same: whoever appends such an event locks the
 * slot of the type (tag_slot.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/role_switch.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/events.h"
#include "log/horizon.h"
#include "log/personal_data.h"
#include "log/position.h"
#include "log/reserved_type.h"
#include "tag/tag_definition.h"

/* All definitions, which are read in one go, in the order of their types. */
typedef struct TagDefinitions
{
	RegistryEntry entry;		/* the only one */
	int			n;
	TagDefinition *definitions;
	char	   *fingerprint;
} TagDefinitions;

static void load(void *entry, const text *key, MemoryContext memory);

static RegistryCache definition_cache = {
	.name = "cqrs_es tag definitions",.entry_size = sizeof(TagDefinitions),.load = load,
	.table = "tag_definitions"
};

PG_FUNCTION_INFO_V1(cqrs_es_define_tags);
PG_FUNCTION_INFO_V1(cqrs_es_drop_tags);

/* see TagDefinitionSetFollowers */
static TagFollowers followers = NULL;

static const TagDefinitions *definitions_if_any(void);
static Datum templates_arg(NullableDatum arg);
static void refuse_tagged(const text *event_type, const JsonPointer *members, int n);
static void refuse_personal(const text *event_type, ArrayType *templates);
pg_noreturn static void report_personal(const text *event_type, const TagTemplate *template);
static int64 settled_part(void);
static void find_added(Datum *values, TagDefinition *added);
static int64 find_event(const text *event_type, int64 after, int64 up_to, bool first);
static int64 history_end(void);
static const text *concerning_tag(const TagDefinition *definition, const EventFilter *filter);
static bool could_give(const TagDefinition *definition, const text *tag);
pg_noreturn static void report_untagged(const TagDefinition *definition, const text *tag);

void
TagDefinitionInit(void)
{
	RegistryRegister("tag_definitions");
	PersonalDataSetCheck(refuse_tagged);
}

/* Who is asked for those that have passed history; called by an Init only. */
void
TagDefinitionSetFollowers(TagFollowers by)
{
	followers = by;
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: define_tags(event_type, VARIADIC templates) */
Datum
cqrs_es_define_tags(PG_FUNCTION_ARGS)
{
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.tag_definitions WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND templates OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTARRAYOID}
	};
	static InternalQuery define = {
		.sql = "INSERT INTO cqrs_es.tag_definitions (event_type, templates, is_complete, history_to, retagged_to)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (event_type) DO UPDATE SET"
		" templates = excluded.templates, is_complete = excluded.is_complete,"
		" history_to = excluded.history_to, retagged_to = excluded.retagged_to",
		.nargs = 5,.argtypes = {TEXTOID, TEXTARRAYOID, BOOLOID, INT8OID, INT8OID}
	};
	text	   *event_type = TextArgument(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[5];
	int64		start = PositionOfNumber(0);
	int64		settled;
	int64		first = 0;		/* of the type, where it is known */
	bool		has_history;
	bool		lacks_some;
	TagDefinition added;

	ReadOnlyPrevent(fcinfo);
	/* what the extension appends must not fail for a tag that it lacks */
	ReservedTypeRefuse(event_type);
	values[0] = PointerGetDatum(event_type);
	values[1] = templates_arg(fcinfo->args[1]);
	if (RegistryHas(&same, values, NULL))
		PG_RETURN_VOID();
	PersonalDataLock();
	refuse_personal(event_type, DatumGetArrayTypeP(values[1]));

	settled = settled_part();
	has_history = settled > start && find_event(event_type, start, settled, false) != 0;
	find_added(values, &added);
	if (has_history && followers && followers(&added, start + 1, false))
		first = find_event(event_type, start, settled, true);
	EventsLockOutWriters();
	find_added(values, &added);
	if (!has_history)
	{
		first = find_event(event_type, Max(start, settled), PositionOfNumber(POSITION_MAX_NUMBER), true);
		has_history = first != 0;
	}
	lacks_some = has_history && added.ntemplates > 0;
	values[2] = BoolGetDatum(!lacks_some);
	values[3] = Int64GetDatum(history_end());
	values[4] = Int64GetDatum(lacks_some ? start : DatumGetInt64(values[3]));
	(void) RegistryWrite(&define, values, NULL);
	if (lacks_some)
	{
		ereport(NOTICE,
				(errmsg("events of type \"%s\" that are in the log already lack these tags",
						text_to_cstring(event_type)),
				 errdetail("Until they have them, nobody can ask for these tags."),
				 errhint("CALL cqrs_es.retag(%s);", quote_literal_cstr(text_to_cstring(event_type)))));
		if (followers && first != 0)
			(void) followers(&added, first, true);
	}
	PG_RETURN_VOID();
}

/*
 * What a definition adds to one that is complete already: its templates that are not in
 * that.  `values` are type and templates.
 */
static void
find_added(Datum *values, TagDefinition *added)
{
	static InternalQuery query = {
		.sql = "SELECT ARRAY(SELECT t.template FROM pg_catalog.unnest($2) AS t (template)"
		" WHERE NOT EXISTS (SELECT FROM cqrs_es.tag_definitions AS d WHERE d.event_type OPERATOR(pg_catalog.=) $1"
		" AND d.is_complete AND t.template OPERATOR(pg_catalog.=) ANY (d.templates))) AS added",
		.nargs = 2,.argtypes = {TEXTOID, TEXTARRAYOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi;
	QueryRow	row;

	memset(added, 0, sizeof(TagDefinition));
	added->event_type = DatumGetTextPP(values[0]);
	SPI_connect();
	(void) RegistryRead(&query, values);
	row = InternalQueryRow(0);
	spi = MemoryContextSwitchTo(caller);
	added->templates = TagTemplateParseAll(DatumGetArrayTypeP(InternalQueryDatum(&row, "added", NULL)),
										   &added->ntemplates);
	MemoryContextSwitchTo(spi);
	SPI_finish();
}

/* The argument templates, checked: each must be a template.  22004, 22023, 2202E. */
static Datum
templates_arg(NullableDatum arg)
{
	ArrayType  *array;
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	int			i;

	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("templates must not be null")));
	array = DatumGetArrayTypeP(arg.value);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("templates must be a one-dimensional array")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &datums, &nulls, &n);
	if (n > TAG_LIST_MAX)
		TagListReportTooMany();
	for (i = 0; i < n; i++)
	{
		TagTemplate template;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a template must not be null")));
		TagTemplateParse(&template, DatumGetTextPP(datums[i]));
	}
	return PointerGetDatum(array);
}

/* Members are to be encrypted: does a tag show one of them?  22023. */
static void
refuse_tagged(const text *event_type, const JsonPointer *members, int n)
{
	const TagDefinition *definition;
	int			i;
	int			j;
	int			k;

	RegistryEnter();
	definition = TagDefinitionIsAny() ? TagDefinitionOf(event_type) : NULL;
	for (i = 0; definition && i < definition->ntemplates; i++)
		for (j = 0; j < definition->templates[i].nparts; j++)
			for (k = 0; k < n; k++)
				if (definition->templates[i].parts[j].literal == NULL &&
					JsonPointerOverlaps(&definition->templates[i].parts[j].path, &members[k]))
					report_personal(event_type, &definition->templates[i]);
	RegistryLeave();
}

/* And the other way round. */
static void
refuse_personal(const text *event_type, ArrayType *templates)
{
	int			n;
	TagTemplate *parsed = TagTemplateParseAll(templates, &n);
	int			i;
	int			j;

	for (i = 0; i < n; i++)
		for (j = 0; j < parsed[i].nparts; j++)
			if (parsed[i].parts[j].literal == NULL && PersonalDataHas(event_type, &parsed[i].parts[j].path))
				report_personal(event_type, &parsed[i]);
}

static void
report_personal(const text *event_type, const TagTemplate *template)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("tags like \"%s\" would show personal data of events of type \"%s\"",
					template->source, text_to_cstring(event_type)),
			 errdetail("Tags are stored in clear, and stay when their subject is forgotten."),
			 errhint("Tag by the subject, or by a digest that clients put into the payload.")));
}

/* SQL: drop_tags(event_type, if_exists) */
Datum
cqrs_es_drop_tags(PG_FUNCTION_ARGS)
{
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.tag_definitions WHERE event_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.tag_definitions WHERE event_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *event_type = TextArgument(fcinfo->args[0], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		value = PointerGetDatum(event_type);
	bool		is_dropped = false;

	ReadOnlyPrevent(fcinfo);
	/* for nothing nobody need be waited for */
	if (RegistryHas(&row, &value, NULL))
	{
		EventsLockOutWriters();
		is_dropped = RegistryDrop(&row, &drop, &value);
	}
	if (!is_dropped)
		RegistryReportMissing(RegistryIfExists(fcinfo->args[1]), ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("no tags are defined for event type \"%s\"",
									   text_to_cstring(event_type)));
	PG_RETURN_VOID();
}

/*
 * Up to which position is it known what the log has, for a snapshot that is taken now?
 * Above READ COMMITTED that would be a walk through all of it.
 */
static int64
settled_part(void)
{
	return IsolationUsesXactSnapshot() ? 0 : HorizonSettled(0);
}

/*
 * The position of an event of the type between two, of any tenant; 0 when there is none.  In
 * the newest snapshot.  `first`: the first one, also quick when there are few behind the first of the two.  42501
 * where row security is forced on an owner of the log who is not above it.
 */
static int64
find_event(const text *event_type, int64 after, int64 up_to, bool first)
{
	static InternalQuery any_of_them = {
		.sql = "SELECT global_position FROM cqrs_es.events WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND global_position OPERATOR(pg_catalog.>) $2"
		" AND global_position OPERATOR(pg_catalog.<=) $3 LIMIT 1",
		.nargs = 3,.argtypes = {TEXTOID, INT8OID, INT8OID}
	};
	static InternalQuery first_of_them = {
		.sql = "SELECT global_position FROM cqrs_es.events WHERE event_type OPERATOR(pg_catalog.=) $1"
		" AND global_position OPERATOR(pg_catalog.>) $2"
		" AND global_position OPERATOR(pg_catalog.<=) $3 ORDER BY global_position LIMIT 1",
		.nargs = 3,.argtypes = {TEXTOID, INT8OID, INT8OID}
	};
	Datum		values[3] = {PointerGetDatum(event_type), Int64GetDatum(after), Int64GetDatum(up_to)};
	int64		position = 0;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	RoleSwitchRequireAllRows();
	if (InternalQueryRead(first ? &first_of_them : &any_of_them, values, NULL, GetLatestSnapshot()) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		position = DatumGetInt64(InternalQueryDatum(&row, "global_position", NULL));
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return position;
}

/*
 * Up to where are there events, in the newest snapshot, this transaction's own among them, or
 * can there be some of those who have drawn positions?  Behind EventsLockOutWriters.
 */
static int64
history_end(void)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanLog(PositionOfNumber(POSITION_MAX_NUMBER),
									BackwardScanDirection, snapshot.snapshot);
	int64		end = PositionOfNumber(PositionLastNumber());
	Event		event;

	if (EventScanNext(scan, &event))
		end = Max(end, EventGlobalPosition(&event));
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return end;
}

/*-------------------------------------------------------------------------
 * looking up
 *-------------------------------------------------------------------------
 */

/* What is defined for an event type, NULL when nothing is; see tag_definition.h. */
const TagDefinition *
TagDefinitionOf(const text *event_type)
{
	const TagDefinitions *all = definitions_if_any();
	int			low = 0;
	int			high = all ? all->n : 0;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = TextCompare(all->definitions[middle].event_type, event_type);

		if (order == 0)
			return &all->definitions[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* Is anything defined at all? */
bool
TagDefinitionIsAny(void)
{
	return definitions_if_any() != NULL;
}

/* All definitions as one text, and since when they hold; see tag_definition.h. */
const char *
TagDefinitionFingerprint(void)
{
	const TagDefinitions *all = definitions_if_any();

	return all ? all->fingerprint : "";
}

/* 55000 when history of one of the types, or of any when there are none, could lack the tag. */
void
TagDefinitionRequireTagged(const text *tag, text *const *event_types, int nevent_types)
{
	const TagDefinitions *all = definitions_if_any();
	int			i;
	int			j;

	for (i = 0; all && i < all->n; i++)
	{
		const TagDefinition *definition = &all->definitions[i];
		bool		is_asked_for = nevent_types == 0;

		for (j = 0; j < nevent_types && !is_asked_for; j++)
			is_asked_for = TextEqual(definition->event_type, event_types[j]);
		if (is_asked_for && !definition->is_complete && could_give(definition, tag))
			report_untagged(definition, tag);
	}
}

/* See tag_definition.h. */
bool
TagDefinitionConcerns(const TagDefinition *definition, const EventFilter *filter)
{
	return concerning_tag(definition, filter) != NULL;
}

/* See tag_definition.h.  All of it is of one look into the registry, so the answer is of one moment. */
uint64
TagDefinitionAsk(const EventFilter *filter, int64 after_position)
{
	const TagDefinitions *all = definitions_if_any();
	uint64		hash = 1;
	int			i;

	for (i = 0; all && i < all->n; i++)
	{
		const TagDefinition *definition = &all->definitions[i];
		const text *tag = concerning_tag(definition, filter);

		if (tag == NULL)
			continue;
		if (after_position < definition->history_to && !definition->is_complete)
			report_untagged(definition, tag);
		hash = hash_combine64(hash, definition->hash);
	}
	return Max(hash, 1);
}

/* The first tag of the filter that the definition could give to what the filter wants; NULL: none. */
static const text *
concerning_tag(const TagDefinition *definition, const EventFilter *filter)
{
	const FilterTexts *types = &filter->event_types;
	bool		has_type = types->all;
	int			i;

	for (i = 0; i < types->n && !has_type; i++)
		has_type = TextEqual(definition->event_type, types->texts[i]);
	for (i = 0; i < filter->ntags && has_type; i++)
		if (could_give(definition, filter->tags[i]))
			return filter->tags[i];
	return NULL;
}

static bool
could_give(const TagDefinition *definition, const text *tag)
{
	int			i;

	for (i = 0; i < definition->ntemplates; i++)
		if (TagTemplateCouldGive(&definition->templates[i], tag))
			return true;
	return false;
}

static void
report_untagged(const TagDefinition *definition, const text *tag)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("older events of type \"%s\" may lack tag \"%s\"",
					text_to_cstring(definition->event_type), text_to_cstring(tag)),
			 errdetail("The tags of the type were defined when it had events already."),
			 errhint("CALL cqrs_es.retag(%s);",
					 quote_literal_cstr(text_to_cstring(definition->event_type)))));
}

/* All definitions, NULL when there are none, as in many databases: once per generation that is found out. */
static const TagDefinitions *
definitions_if_any(void)
{
	static uint64 none_in_generation = 0;
	uint64		generation;
	const TagDefinitions *all;

	/* a reader has taken no lock that would have done it */
	AcceptInvalidationMessages();
	generation = RegistryGenerationOf(&definition_cache);
	if (none_in_generation == generation)
		return NULL;
	all = RegistryLookup(&definition_cache, NULL);
	if (all->n > 0)
		return all;
	none_in_generation = generation;
	return NULL;
}

/* Fill the cache. */
static void
load(void *entry, const text *key, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT event_type, templates, is_complete, history_to,"
		" ROW(event_type, templates, history_to)::pg_catalog.text AS source FROM cqrs_es.tag_definitions"
		" ORDER BY event_type",
		.nargs = 0
	};
	TagDefinitions *all = entry;
	StringInfoData fingerprint;
	uint64		n = RegistryRead(&query, NULL);
	uint64		i;

	initStringInfo(&fingerprint);
	all->definitions = MemoryContextAllocZero(memory, Max(n, 1) * sizeof(TagDefinition));
	for (i = 0; i < n; i++)
	{
		TagDefinition *definition = &all->definitions[i];
		QueryRow	row = InternalQueryRow(i);
		ArrayType  *templates = DatumGetArrayTypeP(InternalQueryDatum(&row, "templates", NULL));
		char	   *source;
		MemoryContext spi;

		definition->is_complete = DatumGetBool(InternalQueryDatum(&row, "is_complete", NULL));
		definition->history_to = DatumGetInt64(InternalQueryDatum(&row, "history_to", NULL));
		spi = MemoryContextSwitchTo(memory);
		definition->event_type = cstring_to_text(InternalQueryText(&row, "event_type"));
		definition->templates = TagTemplateParseAll(templates, &definition->ntemplates);
		MemoryContextSwitchTo(spi);
		source = InternalQueryText(&row, "source");
		definition->hash = DatumGetUInt64(hash_any_extended((const unsigned char *) source,
															(int) strlen(source), 0));
		appendStringInfoString(&fingerprint, source);
	}
	all->fingerprint = MemoryContextStrdup(memory, fingerprint.data);
	all->n = (int) n;
}
