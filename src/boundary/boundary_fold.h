/*-------------------------------------------------------------------------
 * boundary_fold.h
 *	  The state of a boundary: its snapshot + the matching events after it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BOUNDARY_FOLD_H
#define CQRS_ES_BOUNDARY_FOLD_H

#include "utils/snapshot.h"

#include "tag/tag_query.h"
#include "boundary/boundary_snapshot.h"

/* A state, and where it comes from. */
typedef struct BoundaryFold
{
	BoundaryKey key;
	TagQuery   *query;			/* that of the key */
	const Boundary *boundary;
	bool		hides;			/* without personal data, which the caller may not see */

	int64		began_at;		/* the position of the snapshot that it began at, 0
								 * without one */
	int64		position;		/* of the last event in the state; 0: none */
	int64		nevents;		/* in the state since it began */
	Jsonb	   *state;
} BoundaryFold;

extern void BoundaryFoldInit(BoundaryFold *fold, const text *name, Jsonb *query);
extern void BoundaryFoldBegin(BoundaryFold *fold, const Boundary *boundary,
							  int64 up_to_position, Snapshot snapshot);
extern void BoundaryFoldOn(BoundaryFold *fold, int64 up_to_position, Snapshot snapshot);

#endif							/* CQRS_ES_BOUNDARY_FOLD_H */
