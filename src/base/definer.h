/*-------------------------------------------------------------------------
 * definer.h
 *	  What users wrote runs with the rights of whoever defined it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DEFINER_H
#define CQRS_ES_DEFINER_H

#include "executor/spi.h"
#include "nodes/params.h"
#include "parser/parse_node.h"

#include "base/compat.h"
#include "base/direct_plan.h"
#include "base/internal_query.h"
#include "base/role_switch.h"

struct DefinerStatement;

/* Who defined something, and where its names are looked up. */
typedef struct Definer
{
	Oid			role;
	const char *name;			/* of the role, for when it is gone */
	const char *search_path;
} Definer;

/*
 * What statements of a kind have in common.  Their parameters are numbered from 1
 * on, up to 63; in the text they are names, or $1 and so on, or both.
 */
typedef struct DefinerKind
{
	const char *defined;		/* what a definer did, as in "defined the handler" */
	RawParseMode parse_mode;
	int			nparams;

	/*
	 * The parameter that a name means (DefinerParam), or NULL; what the statement itself
	 * could mean by it, or NULL, is in var.  May be NULL itself.
	 */
	PostParseColumnRefHook resolve;

	/* types of the parameters that may be written as numbers; NULL: none may */
	const Oid  *numbered;

	/* They look for rows by a unique key, however few there are when they are planned. */
	bool		by_key;

	/* Raises what a new one may not be; may be NULL. */
	void		(*check) (SPIPlanPtr plan);

	/* Fill in value, isnull and ptype of all parameters; the source is that of Run. */
	void		(*bind) (const struct DefinerStatement *statement, ParamListInfo params,
						 const void *source);
} DefinerKind;

/*
 * SQL that runs as who defined it, in sessions of others.  It keeps its plan for
 * as long as the memory context that it was made in.
 */
typedef struct DefinerStatement
{
	const DefinerKind *kind;
	const char *sql;
	Definer		definer;

	/* private to definer.c */
	SPIPlanPtr	plan;			/* NULL until first run */
	DirectPlan *direct;			/* the same; NULL: it is an ordinary one */
	uint64		used;			/* bits of the parameters that it names */
} DefinerStatement;

/* Does the statement name this parameter? */
#define DefinerStatementUses(statement, number) \
	(((statement)->used & (UINT64CONST(1) << (number))) != 0)

/* Will it probably run directly?  Only DefinerStatementRunDirectly finds out whether it does. */
#define DefinerStatementIsDirect(statement) \
	((statement)->direct != NULL)

extern void DefinerInit(void);
extern DefinerStatement *DefinerStatementMake(const DefinerKind *kind, const char *sql,
											  const Definer *definer);
extern void DefinerStatementDefine(DefinerStatement *statement);
extern void DefinerStatementCheck(DefinerStatement *statement);
extern int	DefinerStatementRun(DefinerStatement *statement, const void *source, uint64 max_rows);
extern bool DefinerStatementRunDirectly(const DefinerStatement *statement, const void *source,
										uint64 *rows, QueryRow *first);
extern Node *DefinerStatementTree(const DefinerStatement *statement);
extern Node *DefinerParam(ParseState *pstate, int number, Oid type, int location);
extern RoleSwitch DefinerSwitchRole(Oid role, const char *search_path);
extern RoleSwitch DefinerSwitchAgain(Oid role, int security_context);
extern char *DefinerSearchPath(void);
extern void DefinerRequireRole(Oid role);
pg_noreturn extern void DefinerThrow(const ErrorData *error);
extern const char *DefinerDetail(const ErrorData *error);

#endif							/* CQRS_ES_DEFINER_H */
