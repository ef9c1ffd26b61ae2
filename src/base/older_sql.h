/*-------------------------------------------------------------------------
 * older_sql.h
 *	  The SQL of an older version, which this library serves until it is updated.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_OLDER_SQL_H
#define CQRS_ES_OLDER_SQL_H

#include "fmgr.h"

extern FunctionCallInfo OlderSqlCall(FunctionCallInfo fcinfo, int nargs);
extern const char *OlderSqlQuery(const char *sql);

#endif							/* CQRS_ES_OLDER_SQL_H */
