/*-------------------------------------------------------------------------
 * compat.h
 *	  What differs between PostgreSQL 15, 16, 17 and 18.  The only file that
 *	  looks at PG_VERSION_NUM.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COMPAT_H
#define CQRS_ES_COMPAT_H

#include "access/genam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "storage/smgr.h"
#include "utils/acl.h"
#include "utils/guc_tables.h"
#include "utils/rel.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "cqrs_es needs PostgreSQL 15 or newer"
#endif

/* databases whose DROP did not come to its end are known since the first minor releases of 15 */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB	(-2)
#endif

/* 17 added a time limit of transactions */
#if PG_VERSION_NUM >= 170000
#define COMPAT_TRANSACTION_TIMEOUT	"transaction_timeout"
#else
#define COMPAT_TRANSACTION_TIMEOUT	NULL
#endif

/* 16 moved the varlena macros out of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 replaced the per-catalog permission checks by object_*check */
#if PG_VERSION_NUM >= 160000
#define compat_class_ownercheck(relid, roleid) \
	object_ownercheck(RelationRelationId, relid, roleid)
#else
#define compat_class_ownercheck(relid, roleid) pg_class_ownercheck(relid, roleid)
#endif

#if PG_VERSION_NUM >= 160000
#define compat_publication_ownercheck(publication, roleid) \
	object_ownercheck(PublicationRelationId, publication, roleid)
#else
#define compat_publication_ownercheck(publication, roleid) pg_publication_ownercheck(publication, roleid)
#endif

#if PG_VERSION_NUM >= 160000
#define compat_extension_ownercheck(extension, roleid) \
	object_ownercheck(ExtensionRelationId, extension, roleid)
#else
#define compat_extension_ownercheck(extension, roleid) pg_extension_ownercheck(extension, roleid)
#endif

#if PG_VERSION_NUM >= 160000
#define compat_namespace_aclcheck(schema, roleid, mode) \
	object_aclcheck(NamespaceRelationId, schema, roleid, mode)
#else
#define compat_namespace_aclcheck(schema, roleid, mode) pg_namespace_aclcheck(schema, roleid, mode)
#endif

/* 16 has no variants of its own for what recurses to children */
#if PG_VERSION_NUM >= 160000
#define compat_adds_or_drops_column(subtype)	false
#else
#define compat_adds_or_drops_column(subtype) \
	((subtype) == AT_AddColumnRecurse || (subtype) == AT_DropColumnRecurse)
#endif

/* a function that is gone: 15 raises 42883, 16 XX000, 17 can say it instead */
static inline AclResult
compat_proc_aclcheck(Oid procid, Oid roleid, AclMode mode, bool *is_missing)
{
#if PG_VERSION_NUM >= 170000
	return object_aclcheck_ext(ProcedureRelationId, procid, roleid, mode, is_missing);
#elif PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, procid, roleid, mode);
#else
	return pg_proc_aclcheck(procid, roleid, mode);
#endif
}

/* 16 took the rights that a query needs out of its range table */
#if PG_VERSION_NUM >= 160000
#define compat_check_permissions(stmt) \
	((void) ExecCheckPermissions((stmt)->rtable, (stmt)->permInfos, true))
#else
#define compat_check_permissions(stmt)	((void) ExecCheckRTPerms((stmt)->rtable, true))
#endif

/* what LOCK TABLE asks for, any of them, to lock a table against writers; 17 added one */
#if PG_VERSION_NUM >= 170000
#define COMPAT_LOCK_RIGHTS	(ACL_MAINTAIN | ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)
#else
#define COMPAT_LOCK_RIGHTS	(ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)
#endif

/* what a subscription receives is written with the rights of the table's owner, not with its own */
#define COMPAT_APPLIES_AS_TABLE_OWNER	(PG_VERSION_NUM >= 160000)

/* the list of settings is sorted whenever one is added, and can be had as it is; 16 hashes */
#define COMPAT_SORTS_SETTINGS	(PG_VERSION_NUM < 160000)

/* all settings that are known, placeholders too; 16 gives a copy */
static inline struct config_generic **
compat_settings(int *n)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(n);
#else
	*n = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* 16 told apart who is a member of a role from who may SET ROLE to it */
#if PG_VERSION_NUM >= 160000
#define compat_check_can_set_role(member, role)	check_can_set_role(member, role)
#else
#define compat_check_can_set_role(member, role)	check_is_member_of_role(member, role)
#endif

/* 17 added an expression with a type of its own choice */
#if PG_VERSION_NUM >= 170000
#define compat_is_json_expr(node)	IsA(node, JsonExpr)
#else
#define compat_is_json_expr(node)	false
#endif

/* 17 renamed what a plan remembers of the search_path */
#if PG_VERSION_NUM >= 170000
#define compat_search_path_is_current(path)	SearchPathMatchesCurrentEnvironment(path)
#else
#define compat_search_path_is_current(path)	OverrideSearchPathMatchesCurrent(path)
#endif

/* 17 gathered a backend's virtual transaction id in one struct */
#if PG_VERSION_NUM >= 170000
#define compat_my_lxid()	(MyProc->vxid.lxid)
#else
#define compat_my_lxid()	(MyProc->lxid)
#endif

/* 17 identifies backends by the number of their place */
static inline PGPROC *
compat_vxid_proc(VirtualTransactionId vxid)
{
#if PG_VERSION_NUM >= 170000
	return ProcNumberGetProc(vxid.procNumber);
#else
	return BackendIdGetProc(vxid.backendId);
#endif
}

/* a lock that is free at once; also not when the lock table is full; 18 can log failures */
#if PG_VERSION_NUM >= 180000
#define compat_try_lock(tag, mode, session) \
	LockAcquireExtended(tag, mode, session, true, false, NULL, false)
#else
#define compat_try_lock(tag, mode, session) \
	LockAcquireExtended(tag, mode, session, true, false, NULL)
#endif

/* 17 can count stronger modes as well */
#if PG_VERSION_NUM >= 170000
#define compat_lock_held(tag, mode)	LockHeldByMe(tag, mode, false)
#else
#define compat_lock_held(tag, mode)	LockHeldByMe(tag, mode)
#endif

/* 17 lets an extension name what it waits for; *wait_event, 0 at first, keeps the name's number */
static inline uint32
compat_wait_event(uint32 *wait_event, const char *name)
{
	if (*wait_event == 0)
#if PG_VERSION_NUM >= 170000
		*wait_event = WaitEventExtensionNew(name);
#else
		*wait_event = PG_WAIT_EXTENSION;
#endif
	return *wait_event;
}

/* 16 added onlySummarizing */
#if PG_VERSION_NUM >= 160000
#define compat_ExecInsertIndexTuples(rri, slot, estate, nodup, conflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, nodup, conflict, arbiters, false)
#else
#define compat_ExecInsertIndexTuples(rri, slot, estate, nodup, conflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, nodup, conflict, arbiters)
#endif

/* 17 lets an index keep something from one row to the next */
#if PG_VERSION_NUM >= 170000
#define compat_index_insert_cleanup(index, info)	index_insert_cleanup(index, info)
#else
#define compat_index_insert_cleanup(index, info)	((void) 0)
#endif

/* a query that is run once, to its end; 18 has it so in any case */
#if PG_VERSION_NUM >= 180000
#define compat_ExecutorRun(query) ExecutorRun(query, ForwardScanDirection, 0)
#else
#define compat_ExecutorRun(query) ExecutorRun(query, ForwardScanDirection, 0, true)
#endif

/* 18 added instrumentation to index scans */
#if PG_VERSION_NUM >= 180000
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 16 added the heap, 17 dropped the snapshot for "snapshot too old" */
#if PG_VERSION_NUM >= 170000
#define compat_bt_search(index, heap, key, leaf) \
	_bt_search(index, heap, key, leaf, BT_READ)
#elif PG_VERSION_NUM >= 160000
#define compat_bt_search(index, heap, key, leaf) \
	_bt_search(index, heap, key, leaf, BT_READ, NULL)
#else
#define compat_bt_search(index, heap, key, leaf) \
	_bt_search(index, key, leaf, BT_READ, NULL)
#endif

/* 16 added the heap */
#if PG_VERSION_NUM >= 160000
#define compat_bt_getroot(index, heap)	_bt_getroot(index, heap, BT_READ)
#else
#define compat_bt_getroot(index, heap)	_bt_getroot(index, BT_READ)
#endif

/* 16 renamed where a relation's file is */
#if PG_VERSION_NUM >= 160000
#define compat_seq_rec_set(record, rel)	((record)->locator = (rel)->rd_locator)
#else
#define compat_seq_rec_set(record, rel)	((record)->node = (rel)->rd_node)
#endif

/* how many blocks an ordinary table has, by its row in pg_class, while it is locked */
static inline BlockNumber
compat_table_blocks(Form_pg_class table)
{
	Oid			tablespace = OidIsValid(table->reltablespace) ? table->reltablespace : MyDatabaseTableSpace;
#if PG_VERSION_NUM >= 160000
	RelFileLocator file = {.spcOid = tablespace,.dbOid = MyDatabaseId,.relNumber = table->relfilenode};
#else
	RelFileNode file = {.spcNode = tablespace,.dbNode = MyDatabaseId,.relNode = table->relfilenode};
#endif

#if PG_VERSION_NUM >= 170000
	return smgrnblocks(smgropen(file, INVALID_PROC_NUMBER), MAIN_FORKNUM);
#else
	return smgrnblocks(smgropen(file, InvalidBackendId), MAIN_FORKNUM);
#endif
}

/* 18 moved what says whether a function in PL/pgSQL is as it was compiled to all languages */
#if PG_VERSION_NUM >= 180000
#define compat_function_xmin(function)	((function)->cfunc.fn_xmin)
#else
#define compat_function_xmin(function)	((function)->fn_xmin)
#endif

/* 16 added who must use a password (nobody: a superuser connects), 17 whether it is for replication */
#if PG_VERSION_NUM >= 170000
#define compat_walrcv_connect(conninfo, appname, err) \
	walrcv_connect(conninfo, true, true, false, appname, err)
#elif PG_VERSION_NUM >= 160000
#define compat_walrcv_connect(conninfo, appname, err) \
	walrcv_connect(conninfo, true, false, appname, err)
#else
#define compat_walrcv_connect(conninfo, appname, err) \
	walrcv_connect(conninfo, true, appname, err)
#endif
#if PG_VERSION_NUM >= 160000
#define compat_walrcv_check_conninfo(conninfo)	walrcv_check_conninfo(conninfo, false)
#else
#define compat_walrcv_check_conninfo(conninfo)	walrcv_check_conninfo(conninfo)
#endif

/* 18 gave "does not return" a new form, written in front */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* what base64 is made of */
#if PG_VERSION_NUM >= 180000
typedef uint8 compat_base64_byte;
#else
typedef char compat_base64_byte;
#endif

#endif							/* CQRS_ES_COMPAT_H */
