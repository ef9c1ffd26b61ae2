/*-------------------------------------------------------------------------
 * command.h
 *	  Commands: load, decide, append.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COMMAND_H
#define CQRS_ES_COMMAND_H

extern void CommandInit(void);

#endif							/* CQRS_ES_COMMAND_H */
