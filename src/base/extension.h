/*-------------------------------------------------------------------------
 * extension.h
 *	  The extension's own objects in the catalog.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EXTENSION_H
#define CQRS_ES_EXTENSION_H

#define CQRS_ES_SCHEMA "cqrs_es"

extern Oid	ExtensionRelid(const char *relname);

#endif							/* CQRS_ES_EXTENSION_H */
