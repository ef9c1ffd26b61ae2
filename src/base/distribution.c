/*-------------------------------------------------------------------------
 * distribution.c
 *	  Has a distributed engine taken one of our tables over?
 *
 * Citus keeps the rows of a distributed table in shards, tables of the same form that lie on
 * this node or another one.  The table itself becomes a shell, on every node: its planner and
 * its COPY send rows to the shards, and what is written below the executor is swallowed.  The
 * triggers of the table are made again on the shards, where they fire, in a session that
 * the sender's node has opened: what that session has drawn, locked or cached is not what the
 * sender's has.
 *
 * A shell has a row in pg_dist_partition.  A shard is known by its name alone: it and its
 * triggers have those of the table and its triggers, with the number of the shard behind
 * them.  (Citus has a list of shards, too; but a new shard is filled before it stands in the
 * list of the node that it is on.)
 *
 * Both are asked of the catalog: callers keep the answer until the table's entry
 * in the relation cache changes, of which Citus sees to that it does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_namespace_d.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"

#include "base/distribution.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/role_switch.h"

/* Is this session just told what is declared on all nodes? */
static bool declares = false;

static bool is_marked(Relation rel);
static bool is_shell(Oid relid);
static bool is_shard(Relation rel);
static const char *shard_suffix(const char *name);

/* What is known of a table that is locked.  Looks into the catalog. */
Distribution
DistributionOf(Relation rel)
{
	if (!OidIsValid(get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE)))
		return DISTRIBUTION_NONE;
	if (is_shard(rel))
		return DISTRIBUTION_SHARD;
	return is_shell(RelationGetRelid(rel)) ? DISTRIBUTION_SHELL : DISTRIBUTION_NONE;
}

/* QE606 if a table is distributed, or a shard of one that is; `what` would be written to it. */
void
DistributionRefuse(Relation rel, const char *what)
{
	if (DistributionOf(rel) == DISTRIBUTION_NONE)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DISTRIBUTED_BY_HAND),
			 errmsg("%s cannot be written to distributed table \"%s\"", what,
					RelationGetRelationName(rel)),
			 errdetail("Citus keeps its rows in shards, where no node sees what the sessions of another have drawn, locked or declared."),
			 errhint("Restore a dump into a database where it is not distributed. A log that is no table of the extension can be taken back by undistribute_table().")));
}

/* Is it distributed, and was that distribute() (scale.c), which has marked a trigger of the log? */
bool
DistributionIsOurs(Relation rel)
{
	return is_marked(rel) && DistributionOf(rel) != DISTRIBUTION_NONE;
}

/* Does each shard of a table lie on the same node as a shard of the other, for the same keys? */
bool
DistributionIsAlong(Oid table, Oid other)
{
	Oid			argtypes[2] = {REGCLASSOID, REGCLASSOID};
	Datum		values[2] = {ObjectIdGetDatum(table), ObjectIdGetDatum(other)};
	bool		found;

	SPI_connect();
	if (SPI_execute_with_args("SELECT 1 FROM pg_catalog.pg_dist_partition AS t, pg_catalog.pg_dist_partition AS o "
							  "WHERE t.logicalrelid OPERATOR(pg_catalog.=) $1 AND o.logicalrelid OPERATOR(pg_catalog.=) $2 "
							  "AND t.colocationid OPERATOR(pg_catalog.=) o.colocationid",
							  2, argtypes, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_dist_partition");
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/* The number that the engine has given to this node. */
int
DistributionNode(void)
{
	int			node;
	bool		isnull;

	SPI_connect();
	if (SPI_execute("SELECT groupid FROM pg_catalog.pg_dist_local_group", true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read pg_dist_local_group");
	node = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return node;
}

/* Is there a node with this number, as of now, whatever snapshot the caller runs under?  On the coordinator: others hear of it later. */
bool
DistributionHasNode(int node)
{
	static InternalQuery query = {
		.sql = "SELECT FROM pg_catalog.pg_dist_node WHERE groupid OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	Datum		value = Int32GetDatum(node);
	bool		found;

	SPI_connect();
	found = InternalQueryRead(&query, &value, NULL, GetLatestSnapshot()) > 0;
	SPI_finish();
	return found;
}

/*
 * Has the node with this number, which is this one, all that is declared for the distributed log?  What
 * admit_nodes() (all_nodes.c) has written counts as of now.
 */
bool
DistributionIsAdmitted(int node)
{
	Oid			argtype = INT4OID;
	Datum		value = Int32GetDatum(node);
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchToOwner("admitted_nodes");
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT 1 FROM cqrs_es.admitted_nodes WHERE node_id OPERATOR(pg_catalog.=) $1",
							  1, &argtype, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read admitted_nodes");
	found = SPI_processed > 0;
	PopActiveSnapshot();
	RoleSwitchBack(&saved);
	SPI_finish();
	return found;
}

/* QE609 where it has not. */
void
DistributionReportNotAdmitted(int node)
{
	ereport(ERROR,
			(errcode(ERRCODE_NODE_NOT_ADMITTED),
			 errmsg("node %d has not been admitted to the distributed log", node),
			 errdetail("It does not know what is declared on the others."),
			 errhint("admit_nodes() on the coordinator tells it.")));
}

/* Is what this session declares declared on all nodes? */
bool
DistributionDeclares(void)
{
	return declares;
}

/* Say so, and what was said before: who says so takes it back, after an error as well. */
bool
DistributionSetDeclares(bool now)
{
	bool		before = declares;

	declares = now;
	return before;
}

/* Looks at a cache's memory: nothing in here may look into the catalog. */
static bool
is_marked(Relation rel)
{
	const TriggerDesc *triggers = rel->trigdesc;
	int			i;

	for (i = 0; triggers && i < triggers->numtriggers; i++)
		if (strncmp(triggers->triggers[i].tgname, "admit_event", strlen("admit_event")) == 0 &&
			triggers->triggers[i].tgnargs == 1 &&
			strcmp(triggers->triggers[i].tgargs[0], "distributed") == 0)
			return true;
	return false;
}

static bool
is_shell(Oid relid)
{
	Oid			argtype = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(relid);
	bool		found;

	SPI_connect();
	if (SPI_execute_with_args("SELECT 1 FROM pg_catalog.pg_dist_partition "
							  "WHERE logicalrelid OPERATOR(pg_catalog.=) $1",
							  1, &argtype, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_dist_partition");
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/* Looks at a cache's memory: nothing in here may look into the catalog. */
static bool
is_shard(Relation rel)
{
	const TriggerDesc *triggers = rel->trigdesc;
	const char *suffix = shard_suffix(RelationGetRelationName(rel));
	int			i;

	for (i = 0; suffix && triggers && i < triggers->numtriggers; i++)
	{
		const char *of_trigger = shard_suffix(triggers->triggers[i].tgname);

		if (of_trigger && strcmp(of_trigger, suffix) == 0)
			return true;
	}
	return false;
}

/* The part of a name like events_102008 from its last underscore on; NULL when digits do not follow. */
static const char *
shard_suffix(const char *name)
{
	const char *suffix = strrchr(name, '_');

	return suffix && suffix[1] != '\0' && strspn(suffix + 1, "0123456789") == strlen(suffix + 1) ?
		suffix : NULL;
}
