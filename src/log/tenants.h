/*-------------------------------------------------------------------------
 * tenants.h
 *	  All tenants of the log, and who may see their events together.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TENANTS_H
#define CQRS_ES_TENANTS_H

extern void TenantsRequireAll(void);
extern bool TenantsMayAll(void);

#endif							/* CQRS_ES_TENANTS_H */
