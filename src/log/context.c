/*-------------------------------------------------------------------------
 * context.c
 *	  Metadata that every event of a transaction carries: correlation id,
 *	  causation id, user, ... set once with
 *	  SET LOCAL cqrs_es.context = '{"correlation_id": "..."}'.
 *
 * The setting is JSON text; it is parsed when its text changed since the
 * last event, not once per event.
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

#include "log/context.h"

static char *cqrs_es_context = NULL;

/* the last parsed text and its value, in context_memory */
static MemoryContext context_memory = NULL;
static char *parsed_text = NULL;
static Jsonb *parsed = NULL;

static Jsonb *current_context(void);

void
ContextInit(void)
{
	DefineCustomStringVariable("cqrs_es.context",
							   "A JSON object that is merged into the metadata of every event.",
							   "Keys given with an event win over these.",
							   &cqrs_es_context, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
}

/*
 * The event's metadata with the transaction's context below it: of a key in
 * both, the event's value stays.  Returns `metadata` itself when there is no
 * context, otherwise a palloc'd value.  Raises 22023 when either is not an
 * object, and the server's JSON errors for a context that is not JSON.
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

	/* parse aside, so that an error leaves the old value whole */
	memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es context",
								   ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(memory);
	{
		Jsonb	   *value = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															   CStringGetDatum(cqrs_es_context)));
		char	   *copy = pstrdup(cqrs_es_context);

		if (!JB_ROOT_IS_OBJECT(value))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("cqrs_es.context must be a JSON object"),
					 errhint("Set it like this: SET LOCAL cqrs_es.context = '{\"correlation_id\": \"...\"}'.")));
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
