/*-------------------------------------------------------------------------
 * registry_function.h
 *	  A user's function that a registry names: a reducer, an upcaster, a handler.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REGISTRY_FUNCTION_H
#define CQRS_ES_REGISTRY_FUNCTION_H

#include "fmgr.h"

#include "base/internal_query.h"

/*
 * SQL: all that decides what a function of pg_proc AS p does, for fingerprints.
 * A body in standard SQL is not in prosrc; deparsed under a fixed search_path and
 * fixed settings (RegistryRead) it is the same text in every session.
 */
#define FUNCTION_SOURCE \
	"p.prosrc, p.probin, cqrs_es.function_body(p.oid), p.proconfig::pg_catalog.text"

/*
 * SQL: which rows these are.  An update makes another one of each, even one that
 * puts back what was there before.
 */
#define ROW_VERSION(r)	"ROW(" r ".xmin, " r ".ctid)::pg_catalog.text"
#define ROW_VERSIONS(r) "ROW(" r ".xmin, " r ".ctid, p.oid, p.xmin, p.ctid)::pg_catalog.text"

/* Lives in a registry cache, until the end of the transaction. */
typedef struct RegistryFunction
{
	const char *role;			/* what it is to us, for messages */
	char	   *signature;
	Oid			oid;			/* invalid: it no longer exists */
	char	   *search_path;	/* of whoever named it */
} RegistryFunction;

/* What a row of calls keeps between them. */
typedef struct FunctionCalls
{
	MemoryContext memory;
	struct FunctionCall *first; /* the functions called so far */
	int			guc_level;		/* 0: all settings are still the caller's */
} FunctionCalls;

extern void RegistryFunctionRegister(const char *table, const char *named);
extern void RegistryFunctionAlsoCheckDrops(void (*check) (void));
extern Datum RegistryFunctionSignature(NullableDatum function, Oid result,
									   const Oid *argtypes, int nargs, const char *expected);
extern bool RegistryFunctionIsNamed(const char *given, const Oid *argtypes, int nargs);
extern bool RegistryFunctionIsName(const char *given);
extern NullableDatum RegistryFunctionByName(const char *given, const Oid *argtypes, int nargs);
extern bool RegistryFunctionExists(Datum signature);
extern char *RegistryFunctionName(const char *signature);
extern void RegistryFunctionInit(RegistryFunction *function, const QueryRow *row,
								 const char *role);
extern uint64 RegistryFunctionDenials(void);
extern void RegistryFunctionRequire(const RegistryFunction *function);
extern void RegistryFunctionCallsInit(FunctionCalls *calls);
extern Datum RegistryFunctionCall(RegistryFunction *function, FunctionCalls *calls,
								  const NullableDatum *args, int nargs);
extern void RegistryFunctionCallsEnd(FunctionCalls *calls);

#endif							/* CQRS_ES_REGISTRY_FUNCTION_H */
