/*-------------------------------------------------------------------------
 * read_only.h
 *	  Where nothing can be written.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_READ_ONLY_H
#define CQRS_ES_READ_ONLY_H

#include "fmgr.h"

extern void ReadOnlyPrevent(FunctionCallInfo fcinfo);

#endif							/* CQRS_ES_READ_ONLY_H */
