/*-------------------------------------------------------------------------
 * errors.c
 *	  What kind of an error is it?
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/errors.h"

/*
 * Is this an error that code of the user did not make: a race to be retried
 * (40xxx), a lock that was not to be had in time (55P03), lack of resources (53xxx),
 * intervention (57xxx), the system (58xxx), the server (XXxxx)?  Such errors are
 * never swallowed or renamed.
 */
bool
ErrorIsNotUsers(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		sqlerrcode == ERRCODE_KEY_UNAVAILABLE ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR);
}
