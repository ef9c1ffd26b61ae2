/*-------------------------------------------------------------------------
 * redacted_error.h
 *	  Errors of consumers that may tell what was redacted.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDACTED_ERROR_H
#define CQRS_ES_REDACTED_ERROR_H

extern void RedactedErrorInit(void);

#endif							/* CQRS_ES_REDACTED_ERROR_H */
