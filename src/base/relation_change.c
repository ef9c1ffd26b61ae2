/*-------------------------------------------------------------------------
 * relation_change.c
 *	  One place of the relation cache's callbacks for all who want one.
 *
 * The server has ten places for the modules of a process together, and ends the process
 * that asks for an eleventh.  So we take one, however many caches of ours there are.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/inval.h"

#include "base/relation_change.h"

#define MAX_OBSERVERS	16

static void (*observers[MAX_OBSERVERS]) (Oid relid);
static int	nobservers = 0;

static void tell(Datum arg, Oid relid);

void
RelationChangeInit(void)
{
	CacheRegisterRelcacheCallback(tell, (Datum) 0);
}

/*
 * Have a function called with the oid of each relation whose entry in the relation cache
 * is no longer valid, and with InvalidOid when all of them are not.  It may come
 * whenever a lock is taken or the catalog read, and must not look into the catalog.  Called by
 * Inits only.
 */
void
RelationChangeObserve(void (*observer) (Oid relid))
{
	if (nobservers >= MAX_OBSERVERS)
		elog(ERROR, "too many observers of changed relations");
	observers[nobservers++] = observer;
}

static void
tell(Datum arg, Oid relid)
{
	int			i;

	for (i = 0; i < nobservers; i++)
		observers[i] (relid);
}
