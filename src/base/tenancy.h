/*-------------------------------------------------------------------------
 * tenancy.h
 *	  Who is calling: the current tenant.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TENANCY_H
#define CQRS_ES_TENANCY_H

#include "utils/rel.h"

#define TENANT_MAX_BYTES 255

extern void TenancyInit(void);
extern bool TenancyIsValid(const char *tenant_id);
extern text *TenancyCurrent(void);
extern void TenancyActFor(const text *tenant_id, int *guc_level);
extern void TenancyRequireGiven(const text *tenant_id);
extern void TenancyRequireOwn(Relation rel, const text *tenant_id);
extern bool TenancyIsAllRowSecurity(Relation rel, AttrNumber tenant_id);

#endif							/* CQRS_ES_TENANCY_H */
