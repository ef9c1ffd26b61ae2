/*-------------------------------------------------------------------------
 * subtransaction.h
 *	  Run something whose error can be caught: in a subtransaction.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SUBTRANSACTION_H
#define CQRS_ES_SUBTRANSACTION_H

#include "utils/elog.h"
#include "utils/palloc.h"
#include "utils/resowner.h"

/* On the stack of who begins it. */
typedef struct Subtransaction
{
	MemoryContext caller;
	ResourceOwner owner;
	volatile bool is_open;
} Subtransaction;

extern void SubtransactionBegin(Subtransaction *subtransaction);
extern void SubtransactionEnd(Subtransaction *subtransaction, bool commit);
extern ErrorData *SubtransactionCatch(Subtransaction *subtransaction);

#endif							/* CQRS_ES_SUBTRANSACTION_H */
