/*-------------------------------------------------------------------------
 * extension.h
 *	  Our own objects in the catalog.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EXTENSION_H
#define CQRS_ES_EXTENSION_H

#define CQRS_ES_SCHEMA "cqrs_es"

extern Oid	CqrsEsRelid(const char *relname);

#endif							/* CQRS_ES_EXTENSION_H */
