/*-------------------------------------------------------------------------
 * boundary_snapshot.h
 *	  Stored states of boundaries: load a usable one, save one.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BOUNDARY_SNAPSHOT_H
#define CQRS_ES_BOUNDARY_SNAPSHOT_H

#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "boundary/boundary.h"

/* What a state is of: a boundary and its keys, as the query says them. */
typedef struct BoundaryKey
{
	const text *boundary;
	text	   *tenant_id;
	Jsonb	   *query;			/* filled in */
	bytea	   *digest;			/* of the query */
} BoundaryKey;

extern void BoundarySnapshotInit(void);
extern BoundaryKey BoundarySnapshotKey(const text *boundary, Jsonb *query);
extern bool BoundarySnapshotLoad(const BoundaryKey *key, const StateRules *rules,
								 int64 up_to_position, Snapshot snapshot,
								 int64 *position, Jsonb **state);
extern void BoundarySnapshotSave(const BoundaryKey *key, const StateRules *rules,
								 int64 position, Jsonb *state);

#endif							/* CQRS_ES_BOUNDARY_SNAPSHOT_H */
