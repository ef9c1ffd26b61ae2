/*-------------------------------------------------------------------------
 * relation_change.h
 *	  Being told of relations whose description in the catalog changes.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RELATION_CHANGE_H
#define CQRS_ES_RELATION_CHANGE_H

extern void RelationChangeInit(void);
extern void RelationChangeObserve(void (*observer) (Oid relid));

#endif							/* CQRS_ES_RELATION_CHANGE_H */
