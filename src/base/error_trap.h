/*-------------------------------------------------------------------------
 * error_trap.h
 *	  Work whose errors must not get out.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ERROR_TRAP_H
#define CQRS_ES_ERROR_TRAP_H

extern void ErrorTrap(void (*work) (void));

#endif							/* CQRS_ES_ERROR_TRAP_H */
