/*-------------------------------------------------------------------------
 * decider.h
 *	  Deciders: state + command -> events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DECIDER_H
#define CQRS_ES_DECIDER_H

#include "utils/jsonb.h"

#include "base/definer.h"

extern DefinerStatement *DeciderMake(const char *expression, const Definer *definer);
extern bool DeciderIsFunction(const char *given);
extern NullableDatum DeciderFunction(const char *given);
extern char *DeciderCall(NullableDatum function);
extern Jsonb *DeciderRun(DefinerStatement *decider, Jsonb *state, Jsonb *command,
						 const text *aggregate_id, Jsonb *metadata, int64 version);

#endif							/* CQRS_ES_DECIDER_H */
