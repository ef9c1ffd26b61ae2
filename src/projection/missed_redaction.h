/*-------------------------------------------------------------------------
 * missed_redaction.h
 *	  Projections that cannot be told of a redaction.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_MISSED_REDACTION_H
#define CQRS_ES_MISSED_REDACTION_H

extern void MissedRedactionInit(void);
extern void MissedRedactionForget(const char *projection);

#endif							/* CQRS_ES_MISSED_REDACTION_H */
