/*-------------------------------------------------------------------------
 * read.h
 *	  Reading the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_READ_H
#define CQRS_ES_READ_H

extern int64 ReadMaxCount(NullableDatum arg);

#endif							/* CQRS_ES_READ_H */
