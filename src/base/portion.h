/*-------------------------------------------------------------------------
 * portion.h
 *	  Procedures that commit after each portion of their work.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PORTION_H
#define CQRS_ES_PORTION_H

#include "fmgr.h"

extern void PortionRequireOwnTransactions(FunctionCallInfo fcinfo, const char *function);
extern int32 PortionSize(NullableDatum arg);
extern void PortionCommit(void);

#endif							/* CQRS_ES_PORTION_H */
