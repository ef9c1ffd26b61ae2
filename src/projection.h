/*-------------------------------------------------------------------------
 * projection.h
 *	  Read models kept current in the appending transaction: the registry.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROJECTION_H
#define CQRS_ES_PROJECTION_H

extern void ProjectionInit(void);

#endif							/* CQRS_ES_PROJECTION_H */
