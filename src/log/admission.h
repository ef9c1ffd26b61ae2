/*-------------------------------------------------------------------------
 * admission.h
 *	  The guards of the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ADMISSION_H
#define CQRS_ES_ADMISSION_H

/* Called for a row of this node that is restored at a position. */
typedef void (*AdmissionObserver) (int64 position);

extern void AdmissionSetObserver(AdmissionObserver observer);

#endif							/* CQRS_ES_ADMISSION_H */
