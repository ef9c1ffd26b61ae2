/*-------------------------------------------------------------------------
 * reducer_state.c
 *	  A state while it is folded.
 *
 * An event type without a reducer has its payload merged into the state.  One
 * that is no object leaves it as it is: serializers write events without fields
 * as "Frozen", [] or null, and RFC 7396 would put that in the state's place.
 *
 * Declared reducers and merges change a tree in place, functions take and
 * return jsonb.  The state stays in the form the last reducer left it in, and
 * is converted when the next one wants the other: an aggregate that has only
 * declared reducers becomes jsonb once, at the end.
 *
 * Memory is that of the state: the tree frees what it replaces; of the two
 * contexts for jsonb one is reset as soon as the other has the next state.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "log/personal_data.h"
#include "log/reserved_type.h"
#include "log/upcast.h"
#include "aggregate/json_tree.h"
#include "aggregate/reducer.h"
#include "aggregate/reducer_program.h"
#include "aggregate/reducer_state.h"

static void merge(ReducerState *state, Jsonb *payload);
static void make_tree(ReducerState *state);
static void make_flat(ReducerState *state);
static void keep_flat(ReducerState *state, const Jsonb *json);

/* Start with a state; its memory hangs below the current memory context. */
void
ReducerStateInit(ReducerState *state, Jsonb *json)
{
	memset(state, 0, sizeof(*state));
	state->tree_memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es state tree",
											   ALLOCSET_DEFAULT_SIZES);
	state->flat_memory[0] = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es state",
												  ALLOCSET_DEFAULT_SIZES);
	state->flat_memory[1] = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es state",
												  ALLOCSET_DEFAULT_SIZES);
	RegistryFunctionCallsInit(&state->calls);
	keep_flat(state, json);
}

/*
 * Lift the event to its newest version and apply it.  The current memory
 * context takes what that needs and should be reset afterwards.  Raises what the reducer raises.
 */
void
ReducerStateApply(ReducerState *state, const StateRules *rules, Event *event)
{
	Reducer    *reducer = ReducerFind(rules, EventText(event, EVENT_EVENT_TYPE));

	/* what the extension appends is no part of it */
	if (reducer == NULL && ReservedTypeIs(EventText(event, EVENT_EVENT_TYPE)))
		return;
	if (state->hides)
		PersonalDataHide(event);
	else
		PersonalDataOpen(event);
	UpcastEvent(event, &state->calls);
	if (reducer == NULL)
		merge(state, DatumGetJsonbP(event->values[EVENT_PAYLOAD]));
	else if (reducer->program)
	{
		make_tree(state);
		state->tree = ReducerProgramRun(reducer->program, state->tree, event, state->tree_memory);
	}
	else
	{
		make_flat(state);
		keep_flat(state, ReducerCall(reducer, &state->calls, state->flat, event));
	}
}

/* The state as jsonb, palloc'd. */
Jsonb *
ReducerStateJsonb(const ReducerState *state)
{
	if (state->tree)
		return JsonTreeToJsonb(state->tree);
	return (Jsonb *) memcpy(palloc(VARSIZE(state->flat)), state->flat, VARSIZE(state->flat));
}

/* Done: the search_path is the caller's again.  Memory goes with its context. */
void
ReducerStateEnd(ReducerState *state)
{
	RegistryFunctionCallsEnd(&state->calls);
}

/* What stands for a reducer where there is none. */
static void
merge(ReducerState *state, Jsonb *payload)
{
	JsonbValue	patch;
	MemoryContext caller;

	if (!JB_ROOT_IS_OBJECT(payload))
		return;
	JsonTreeDocumentValue(payload, &patch);
	make_tree(state);
	caller = MemoryContextSwitchTo(state->tree_memory);
	state->tree = JsonTreeMerge(state->tree, &patch);
	MemoryContextSwitchTo(caller);
}

static void
make_tree(ReducerState *state)
{
	MemoryContext caller;

	if (state->tree)
		return;
	caller = MemoryContextSwitchTo(state->tree_memory);
	state->tree = JsonTreeFromJsonb(state->flat);
	MemoryContextSwitchTo(caller);
	state->flat = NULL;
	MemoryContextReset(state->flat_memory[state->current]);
}

static void
make_flat(ReducerState *state)
{
	if (state->flat)
		return;
	keep_flat(state, JsonTreeToJsonb(state->tree));
	state->tree = NULL;
	MemoryContextReset(state->tree_memory);
}

/* Keep a copy of the new state and let the old one go. */
static void
keep_flat(ReducerState *state, const Jsonb *json)
{
	int			next = 1 - state->current;

	/* a function in C may return what it was given */
	if (json == state->flat)
		return;
	state->flat = memcpy(MemoryContextAlloc(state->flat_memory[next], VARSIZE(json)),
						 json, VARSIZE(json));
	MemoryContextReset(state->flat_memory[state->current]);
	state->current = next;
}
