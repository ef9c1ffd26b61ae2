/*-------------------------------------------------------------------------
 * context.c
 *	  Metadata that every event of a transaction carries: correlation id,
 *	  causation id, user, ... set once with
 *	  SET LOCAL cqrs_es.context = '{"correlation_id": "..."}'.
 *
 * The setting is JSON text; what is none is refused when it is set.  It is parsed
 * when its text changed since the last event, not once per event.
 *
 * An event's own metadata win over it.  What they are put together from, and what
 * wins there: append_request.c, and for commands command_id.c.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/setting.h"
#include "log/context.h"

static char *cqrs_es_context = NULL;

/* the last parsed text and its value, in context_memory */
static MemoryContext context_memory = NULL;
static char *parsed_text = NULL;
static Jsonb *parsed = NULL;

static bool check_context(char **newval, void **extra, GucSource source);
static char *problem_of(const char *context);
static Jsonb *current_context(void);

void
ContextInit(void)
{
	SettingDefineString("cqrs_es.context",
						"A JSON object that is merged into the metadata of every event.",
						"Keys given with an event win over these.",
						&cqrs_es_context, "",
						PGC_USERSET, 0, check_context);
}

static bool
check_context(char **newval, void **extra, GucSource source)
{
	char	   *problem = *newval ? problem_of(*newval) : NULL;

	if (problem == NULL)
		return true;
	GUC_check_errdetail("%s", problem);
	GUC_check_errhint("Set it like this: SET LOCAL cqrs_es.context = '{\"correlation_id\": \"...\"}'.");
	return false;
}

/* Can it be a context? */
bool
ContextIsValid(const char *context)
{
	return problem_of(context) == NULL;
}

/*
 * Why a text is no context, as a sentence; NULL when it is one.  The text is tried
 * as a value of type jsonb, for that is what it will have to be.  Errors of that are
 * caught without a subtransaction, which there may be none for where settings are
 * checked: it reads a text and allocates memory, no more.
 */
static char *
problem_of(const char *context)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext memory;
	char	   *volatile problem = NULL;

	if (context[0] == '\0')
		return NULL;
	memory = AllocSetContextCreate(caller, "cqrs_es context check", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		Jsonb	   *value = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(context)));

		if (!JB_ROOT_IS_OBJECT(value))
			problem = MemoryContextStrdup(caller, "It must be a JSON object.");
	}
	PG_CATCH();
	{
		ErrorData  *error;
		int			category;

		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		category = ERRCODE_TO_CATEGORY(error->sqlerrcode);
		/* no memory */
		if (category != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) &&
			category != ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED))
			PG_RE_THROW();
		FlushErrorState();
		MemoryContextSwitchTo(caller);
		problem = error->detail ? psprintf("It is no JSON. %s", error->detail) :
			psprintf("It is no JSON: %s.", error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	return problem;
}

/*
 * The event's metadata with the transaction's context below it: of a key in
 * both, the event's value stays.  Returns `metadata` itself when there is no
 * context, otherwise a palloc'd value.  Raises 22023 when the metadata is not an
 * object.
 */
Jsonb *
ContextMetadata(Jsonb *metadata)
{
	Jsonb	   *context = current_context();

	if (!JB_ROOT_IS_OBJECT(metadata))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be a JSON object")));
	if (context == NULL || JB_ROOT_COUNT(context) == 0)
		return metadata;
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(context),
											  JsonbPGetDatum(metadata)));
}

/* '{}', for metadata and payloads that nobody gave; made once in a session. */
Jsonb *
ContextEmptyObject(void)
{
	static Jsonb *empty = NULL;

	if (empty == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		empty = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
		MemoryContextSwitchTo(caller);
	}
	return empty;
}

/* The setting as an object; NULL when it is empty. */
static Jsonb *
current_context(void)
{
	MemoryContext memory;
	MemoryContext caller;

	if (cqrs_es_context == NULL || cqrs_es_context[0] == '\0')
		return NULL;
	if (parsed_text != NULL && strcmp(parsed_text, cqrs_es_context) == 0)
		return parsed;

	/* parse aside, so that an error (out of memory) leaves the old value whole */
	memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es context",
								   ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(memory);
	{
		Jsonb	   *value = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															   CStringGetDatum(cqrs_es_context)));
		char	   *copy = pstrdup(cqrs_es_context);

		MemoryContextSetParent(memory, TopMemoryContext);
		if (context_memory)
			MemoryContextDelete(context_memory);
		context_memory = memory;
		parsed = value;
		parsed_text = copy;
	}
	MemoryContextSwitchTo(caller);
	return parsed;
}
