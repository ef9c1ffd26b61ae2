/*-------------------------------------------------------------------------
 * strict.h
 *	  Events that the reducers of an aggregate cannot take: refused, or found.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STRICT_H
#define CQRS_ES_STRICT_H

extern void StrictInit(void);

#endif							/* CQRS_ES_STRICT_H */
