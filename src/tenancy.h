/*-------------------------------------------------------------------------
 * tenancy.h
 *	  Who is calling: the current tenant, and the caller's rights.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TENANCY_H
#define CQRS_ES_TENANCY_H

#include "nodes/parsenodes.h"

#define TENANT_MAX_BYTES 255

extern void TenancyInit(void);
extern text *TenancyCurrent(void);
extern void TenancyRequireEvents(Oid events_relid, AclMode mode);

#endif							/* CQRS_ES_TENANCY_H */
