/*-------------------------------------------------------------------------
 * reducer_program.h
 *	  Declared reducers: a list of operations that change the state.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDUCER_PROGRAM_H
#define CQRS_ES_REDUCER_PROGRAM_H

#include "utils/jsonb.h"

#include "log/events.h"
#include "aggregate/json_tree.h"

typedef struct ReducerProgram ReducerProgram;

extern ReducerProgram *ReducerProgramCompile(Jsonb *operations);
extern JsonNode *ReducerProgramRun(const ReducerProgram *program, JsonNode *state,
								   const Event *event, MemoryContext state_memory);

#endif							/* CQRS_ES_REDUCER_PROGRAM_H */
