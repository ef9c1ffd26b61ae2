/*-------------------------------------------------------------------------
 * compiled_function.h
 *	  Functions in PL/pgSQL that were compiled before a definer's code calls them.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COMPILED_FUNCTION_H
#define CQRS_ES_COMPILED_FUNCTION_H

extern void CompiledFunctionInit(void);

#endif							/* CQRS_ES_COMPILED_FUNCTION_H */
