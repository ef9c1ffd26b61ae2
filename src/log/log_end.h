/*-------------------------------------------------------------------------
 * log_end.h
 *	  The greatest position in the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOG_END_H
#define CQRS_ES_LOG_END_H

#include "utils/rel.h"

extern int64 LogEnd(int64 bound, bool exact, Relation open_index);
extern char *LogEndStreamAt(Relation rel, int64 position);

#endif							/* CQRS_ES_LOG_END_H */
