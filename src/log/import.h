/*-------------------------------------------------------------------------
 * import.h
 *	  History of other systems.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_IMPORT_H
#define CQRS_ES_IMPORT_H

extern bool ImportAllowed(void);

#endif							/* CQRS_ES_IMPORT_H */
