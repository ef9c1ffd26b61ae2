/*-------------------------------------------------------------------------
 * extension.h
 *	  The extension's own objects in the catalog.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EXTENSION_H
#define CQRS_ES_EXTENSION_H

#define CQRS_ES_SCHEMA "cqrs_es"

/* What is installed in this database? */
typedef enum ExtensionState
{
	EXTENSION_ABSENT,
	EXTENSION_OTHER_VERSION,	/* than that of this library */
	EXTENSION_PRESENT
} ExtensionState;

extern void ExtensionInit(void);
extern void ExtensionToldBy(const char *relname);
extern Oid	ExtensionFindRelid(const char *relname);
extern Oid	ExtensionRelid(const char *relname);
extern Oid	ExtensionRelidIfUpdated(const char *relname);
extern Oid	ExtensionFindFunction(const char *name);
extern bool ExtensionIsBlank(const char *relname);
extern ExtensionState ExtensionLook(Oid *extension);
extern bool ExtensionIsOlder(void);
extern void ExtensionRefuseOlder(void);

#endif							/* CQRS_ES_EXTENSION_H */
