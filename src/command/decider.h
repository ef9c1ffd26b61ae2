/*-------------------------------------------------------------------------
 * decider.h
 *	  Deciders: state + command -> events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DECIDER_H
#define CQRS_ES_DECIDER_H

#include "executor/spi.h"
#include "utils/jsonb.h"

/*
 * How a command is decided.  The caller fills the first block, in a chunk of memory
 * of its own that lasts to the end of the transaction at least: the plan hangs on it.
 */
typedef struct Decider
{
	text	   *command_type;
	char	   *expression;
	Oid			definer;
	char	   *definer_name;
	char	   *search_path;

	/* private to decider.c */
	SPIPlanPtr	plan;			/* NULL until first used */
}			Decider;

extern void DeciderInit(void);
extern char *DeciderCall(NullableDatum function);
extern void DeciderValidate(const char *expression, const char *search_path);
extern Jsonb *DeciderRun(Decider * decider, Jsonb *state, Jsonb *command,
						 const text *aggregate_id, Jsonb *metadata, int64 version);

#endif							/* CQRS_ES_DECIDER_H */
