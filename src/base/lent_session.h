/*-------------------------------------------------------------------------
 * lent_session.h
 *	  A session in which code runs of somebody with less rights than who lends it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LENT_SESSION_H
#define CQRS_ES_LENT_SESSION_H

#include "nodes/pg_list.h"

/* What of the session is put away until LentSessionEnd. */
typedef struct LentSession
{
	List	   *cursors;
} LentSession;

extern void LentSessionInit(void);
extern void LentSessionBegin(LentSession *lent);
extern void LentSessionEnd(LentSession *lent);

#endif							/* CQRS_ES_LENT_SESSION_H */
