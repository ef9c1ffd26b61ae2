/*-------------------------------------------------------------------------
 * position.h
 *	  Global positions: how they are drawn, and which this backend drew.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_POSITION_H
#define CQRS_ES_POSITION_H

#include "utils/rel.h"

/* A position is node << 44 | number; numbers come from one sequence. */
#define POSITION_NUMBER_BITS	44
#define POSITION_NUMBER(p)		((p) & POSITION_MAX_NUMBER)
#define POSITION_NODE(p)		((p) >> POSITION_NUMBER_BITS)
#define POSITION_MAX_NODE		511
#define POSITION_MAX_NUMBER		((INT64CONST(1) << POSITION_NUMBER_BITS) - 1)

/*
 * The greatest position of this node that is used, by whatever means; unless
 * `exact`, it may be greater.  `open_index` as in PositionDraw.
 */
typedef int64 (*PositionFloor) (bool exact, Relation open_index);

/* Raises an error where no position may be drawn. */
typedef void (*PositionGuard) (void);

extern void PositionInit(void);
extern int	PositionNode(void);
extern bool PositionNodeIsValid(const char *node_id);
extern Oid	PositionSequence(void);
extern void PositionSetFloor(PositionFloor floor);
extern void PositionSetGuard(PositionGuard guard);
extern int64 PositionDraw(int64 after, Relation open_index);
extern void PositionKeep(int64 position, uint64 drawn_in);
extern bool PositionTake(int64 position, uint64 *drawn_in);
extern void PositionBeginEpoch(void);
extern uint64 PositionEpoch(void);
extern bool PositionIsOwn(int64 position);
extern int64 PositionFirstOwn(void);
extern int64 PositionOfNumber(int64 number);
extern int64 PositionLastNumber(void);
extern int64 PositionSequenceNumber(Oid sequence);
extern int64 PositionAdvance(int64 number);
extern void PositionHoldReaders(void);

#endif							/* CQRS_ES_POSITION_H */
