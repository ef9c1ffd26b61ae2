/*-------------------------------------------------------------------------
 * publication.h
 *	  A log is published, and handed over.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PUBLICATION_H
#define CQRS_ES_PUBLICATION_H

#include "nodes/parsenodes.h"

/* names of the slots that follow_log makes begin with it */
#define PUBLICATION_SLOT_PREFIX "cqrs_es_"

extern void PublicationInit(void);
extern Node *PublicationParse(const char *sql);

#endif							/* CQRS_ES_PUBLICATION_H */
