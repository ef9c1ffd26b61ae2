/*-------------------------------------------------------------------------
 * snapshot.h
 *	  When a snapshot is taken.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SNAPSHOT_H
#define CQRS_ES_SNAPSHOT_H

extern void SnapshotInit(void);

#endif							/* CQRS_ES_SNAPSHOT_H */
