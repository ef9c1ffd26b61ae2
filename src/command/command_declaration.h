/*-------------------------------------------------------------------------
 * command_declaration.h
 *	  Commands: declared, dropped, found.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COMMAND_DECLARATION_H
#define CQRS_ES_COMMAND_DECLARATION_H

#include "base/definer.h"
#include "aggregate/state_rules.h"

#define COMMAND_TYPE_MAX_BYTES	255

extern void CommandDeclarationInit(void);
extern DefinerStatement *CommandDeclarationDecider(const StateOwner *owner, const text *name,
												   const text *command_type);

#endif							/* CQRS_ES_COMMAND_DECLARATION_H */
