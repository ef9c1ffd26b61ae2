/*-------------------------------------------------------------------------
 * decider.h
 *	  Deciders: state + command -> events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DECIDER_H
#define CQRS_ES_DECIDER_H

#include "utils/jsonb.h"

#include "base/definer.h"

/* What is to be decided on. */
typedef struct Question
{
	Jsonb	   *state;
	Jsonb	   *command;
	Jsonb	   *metadata;

	/* where states are those of streams; else NULL and 0 */
	const text *aggregate_id;
	int64		version;
} Question;

extern DefinerStatement *DeciderMake(const char *expression, const Definer *definer,
									 bool of_stream);
extern bool DeciderIsFunction(const char *given);
extern NullableDatum DeciderFunction(const char *given);
extern char *DeciderCall(NullableDatum function);
extern Jsonb *DeciderRun(DefinerStatement *decider, const Question *question);

#endif							/* CQRS_ES_DECIDER_H */
