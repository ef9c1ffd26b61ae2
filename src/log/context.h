/*-------------------------------------------------------------------------
 * context.h
 *	  Metadata that every event of a transaction carries.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_CONTEXT_H
#define CQRS_ES_CONTEXT_H

#include "utils/jsonb.h"

extern void ContextInit(void);
extern bool ContextIsValid(const char *context);
extern Jsonb *ContextMetadata(Jsonb *metadata);
extern Jsonb *ContextEmptyObject(void);

#endif							/* CQRS_ES_CONTEXT_H */
