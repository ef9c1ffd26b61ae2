/*-------------------------------------------------------------------------
 * distribution.h
 *	  Has a distributed engine taken one of our tables over?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DISTRIBUTION_H
#define CQRS_ES_DISTRIBUTION_H

#include "utils/rel.h"

/* the number of the node that knows all others */
#define DISTRIBUTION_COORDINATOR	0

/* Where the rows of a table are, as far as this node can say. */
typedef enum Distribution
{
	DISTRIBUTION_NONE,			/* in it */
	DISTRIBUTION_SHELL,			/* in its shards, some on other nodes; the table itself
								 * is empty */
	DISTRIBUTION_SHARD			/* in it, and it is a shard of another table */
} Distribution;

extern Distribution DistributionOf(Relation rel);
extern bool DistributionIsOurs(Relation rel);
extern bool DistributionIsAlong(Oid table, Oid other);
extern int	DistributionNode(void);
extern bool DistributionHasNode(int node);
extern bool DistributionIsAdmitted(int node);
extern void DistributionReportNotAdmitted(int node);
extern bool DistributionDeclares(void);
extern bool DistributionSetDeclares(bool declares);
extern void DistributionRefuse(Relation rel, const char *what);

#endif							/* CQRS_ES_DISTRIBUTION_H */
