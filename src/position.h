/*-------------------------------------------------------------------------
 * position.h
 *	  Global positions: how they are drawn, and which this backend drew.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_POSITION_H
#define CQRS_ES_POSITION_H

/* A position is node << 44 | number; numbers come from one sequence. */
#define POSITION_NUMBER_BITS	44
#define POSITION_NUMBER(p)		((p) & POSITION_MAX_NUMBER)
#define POSITION_NODE(p)		((p) >> POSITION_NUMBER_BITS)
#define POSITION_MAX_NODE		511
#define POSITION_MAX_NUMBER		((INT64CONST(1) << POSITION_NUMBER_BITS) - 1)

extern int	cqrs_es_node_id;

extern void PositionInit(void);
extern Oid	PositionSequence(void);
extern int64 PositionDraw(void);
extern bool PositionTake(int64 position);
extern bool PositionIsOwn(int64 position);
extern int64 PositionFirstOwn(void);
extern int64 PositionOfNumber(int64 number);
extern int64 PositionLastNumber(void);
extern void PositionAdvance(int64 number);

#endif							/* CQRS_ES_POSITION_H */
