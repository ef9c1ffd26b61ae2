/*-------------------------------------------------------------------------
 * restore.c
 *	  Is a dump being restored over this database?
 *
 * "pg_restore --clean" drops one object after the other, what depends first: read
 * models and functions that declarations name long before the extension, with the
 * declarations.  What is refused then stays, and the data that come on top of it fit
 * nothing.  So a restore may drop what nobody else may.
 *
 * It is known by check_function_bodies, which every dump turns off first, and which
 * the server has for that.  That alone would be too little: whoever owns a schema
 * could drop a function of somebody else, and put one in its place that runs with
 * the rights of whoever defined the handler.  So the session must be one of the
 * extension's owner, who could drop all of it anyway, and the command must be what
 * the client sent, no part of a function, whoever wrote that.  (Under whose name the
 * session acts at the moment does not matter: with --use-set-session-authorization
 * that is the owner of what is dropped.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/portal.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/restore.h"

/*
 * To be asked while the event trigger for a DROP runs: is that part of a restore,
 * by somebody who might as well drop the extension?
 */
bool
RestoreDrops(void)
{
	Oid			extension;
	PlannedStmt *statement;

	if (check_function_bodies || ActivePortal == NULL || list_length(ActivePortal->stmts) != 1)
		return false;
	statement = linitial_node(PlannedStmt, ActivePortal->stmts);
	if (statement->utilityStmt == NULL || !IsA(statement->utilityStmt, DropStmt))
		return false;
	extension = get_extension_oid(CQRS_ES_SCHEMA, true);
	return OidIsValid(extension) &&
		compat_extension_ownercheck(extension, GetAuthenticatedUserId());
}
