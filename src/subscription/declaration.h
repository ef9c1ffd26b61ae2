/*-------------------------------------------------------------------------
 * declaration.h
 *	  Subscriptions are created, altered and dropped.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DECLARATION_H
#define CQRS_ES_DECLARATION_H

extern void DeclarationDrop(const text *name);

#endif							/* CQRS_ES_DECLARATION_H */
