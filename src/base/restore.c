/*-------------------------------------------------------------------------
 * restore.c
 *	  Is a dump being restored into this database?
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
 *
 * What is declared comes before the tables that projections keep, and each table in a
 * transaction of its own.  Whoever ran an asynchronous projection in between would write into
 * an empty table, to which its rows come later, or not at all.  So a session that brings
 * declarations of a dump has a lock from then on, to its end: that of pg_restore, or of one
 * of its jobs, which all last until all data are there.  It is one of those that a
 * rollback does not take.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lock.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/portal.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/lock_probe.h"
#include "base/restore.h"

/* advisory locks of users have 1 or 2 in the fourth field of their tag */
#define RESTORE_LOCK_CLASS	0xCF

static LOCKTAG lock_tag(void);

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

/* A row of a registry is stored that was written elsewhere: is it this session that restores? */
void
RestoreBringsRow(void)
{
	LOCKTAG		tag = lock_tag();

	if (!check_function_bodies)
		(void) LockAcquire(&tag, ShareLock, true, false);
}

/* Does another session restore a dump into this database?  Waits for nobody. */
bool
RestoreIsUnderWay(void)
{
	LOCKTAG		tag = lock_tag();

	return LockProbeIsTaken(&tag, RowExclusiveLock);
}

static LOCKTAG
lock_tag(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, RESTORE_LOCK_CLASS);
	return tag;
}
