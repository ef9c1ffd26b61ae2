/*-------------------------------------------------------------------------
 * projection.h
 *	  Read models kept current in the appending transaction: the registry.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROJECTION_H
#define CQRS_ES_PROJECTION_H

#include "base/internal_query.h"
#include "log/events.h"

#define PROJECTION_NAME_MAX_BYTES 255

extern void ProjectionInit(void);
extern void ProjectionLockRow(InternalQuery *query, const text *name);
extern bool ProjectionReplay(const char *name, const Event *event);
extern Oid *ProjectionLocks(Datum read_models, int *n);

#endif							/* CQRS_ES_PROJECTION_H */
