/*-------------------------------------------------------------------------
 * stream_index.h
 *	  The unique index that guards the streams of a table.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STREAM_INDEX_H
#define CQRS_ES_STREAM_INDEX_H

#include "log/event_columns.h"

/* What the indexes of a table are to an append. */
typedef struct StreamIndexes
{
	Oid			guard;			/* guards the streams; InvalidOid: none does */
	bool		only_unique;	/* nothing else is unique, in whatever state */
	bool		deferrable;		/* a constraint of the others may be checked later */
	bool		deterministic;	/* the collations of the columns of the stream's key */
} StreamIndexes;

extern void StreamIndexInit(void);
extern StreamIndexes StreamIndexesOf(Relation rel, const EventColumns *columns);
extern bool StreamIndexByPosition(Relation rel, const EventColumns *columns);
extern Oid	StreamIndexRequire(Relation rel, const EventColumns *columns);

#endif							/* CQRS_ES_STREAM_INDEX_H */
