/*-------------------------------------------------------------------------
 * projection_rebuild.h
 *	  Rebuild, pause and resume projections.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROJECTION_REBUILD_H
#define CQRS_ES_PROJECTION_REBUILD_H

#include "projection/locked_projection.h"
#include "projection/replay.h"

extern void ProjectionRebuildGoLive(LockedProjection *locked, Replay *replay);

#endif							/* CQRS_ES_PROJECTION_REBUILD_H */
