/*-------------------------------------------------------------------------
 * cqrs_es.c
 *	  Module entry, and the few helpers that every concept shares.
 *
 * cqrs_es turns PostgreSQL into an event store.  Following an event:
 *
 *	append.c (version check, idempotency) -> event_writer.c (straight path or
 *	SQL) -> events.c (the table) -> dispatch.c (the AFTER trigger) ->
 *	projection.c, fold.c (snapshot due?) -> commit -> horizon.c (settled?) ->
 *	read.c hands it out.
 *
 * A plain INSERT or COPY takes the same way through admission.c, the one
 * BEFORE ROW trigger.  Files are numbered by the SQL parts: a file uses only
 * headers of its own row or of lower numbers.
 *
 *	00 cqrs_es, errors, compat	32 admission				45 upcast
 *	05 settings, internal_query,	33 dispatch				50 read
 *	   definer
 *	10 tenancy					35 append, event_writer		55 reducer, reducer_program,
 *	15 context					36 registry					   reducer_state, json_tree
 *	25 position					37 registry_function		60 snapshot
 *	27 event_id					38 log_history				65 fold
 *	30 events, event_scan,		39 published				70 command, decider,
 *	   row_scan, last_row,		40 horizon					   command_queue
 *	   log_end, stream_index								75 projection, handler,
 *															   state_projection
 *															77 projection_rebuild
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "log/append.h"
#include "command/command.h"
#include "base/compat.h"
#include "log/context.h"
#include "base/cqrs_es.h"
#include "command/decider.h"
#include "base/definer.h"
#include "log/dispatch.h"
#include "base/errors.h"
#include "log/events.h"
#include "aggregate/fold.h"
#include "projection/handler.h"
#include "log/horizon.h"
#include "log/log_history.h"
#include "log/position.h"
#include "projection/projection.h"
#include "base/registry.h"
#include "log/stream_index.h"
#include "base/tenancy.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

/* The settings that not everyone may set (PGC_SUSET). */
static const char *const guarded_settings[] = {"cqrs_es.node_id", "cqrs_es.tenant_id"};

static void refuse_forged_setting(const char *name);
static bool could_set(const char *name, GucContext context, Oid role);

/*
 * Table of contents: one Init per concept that has settings, callbacks or
 * something to do after an append (DispatchRegister: in the order called).
 */
void
_PG_init(void)
{
	size_t		i;

	for (i = 0; i < lengthof(guarded_settings); i++)
		refuse_forged_setting(guarded_settings[i]);
	TenancyInit();
	ContextInit();
	RegistryInit();
	PositionInit();
	StreamIndexInit();
	EventsInit();
	DispatchInit();
	AppendInit();
	LogHistoryInit();
	HorizonInit();
	DefinerInit();
	HandlerInit();
	ProjectionInit();
	FoldInit();
	DeciderInit();
	CommandInit();
	MarkGUCPrefixReserved(CQRS_ES_SCHEMA);
}

/*
 * Do not load while a guarded setting has a value from somebody who may not set
 * it.  Before the library is loaded, which may be in the middle of a session, the
 * server knows no better than to let anybody set it, by SET or in the
 * connection's options.  When the setting is defined it would drop such a value
 * with a warning, and go on with another one than the client believes; with the
 * default even, when the value came with the connection and so kept out what
 * ALTER ROLE or postgresql.conf say.  An error here leaves the library unloaded:
 * the next use comes here again.
 */
static void
refuse_forged_setting(const char *name)
{
	struct config_generic *setting = compat_find_setting(name);

	if (setting == NULL ||
		(could_set(name, setting->scontext, setting->srole) &&
		 could_set(name, setting->reset_scontext, setting->reset_srole)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to set parameter \"%s\"", name),
			 errdetail("It was set in this session or with the connection's options."),
			 errhint("Reset it, or connect without it.")));
}

/* As the server will judge it when it knows that the setting is PGC_SUSET. */
static bool
could_set(const char *name, GucContext context, Oid role)
{
	return (context != PGC_USERSET && context != PGC_BACKEND) ||
		pg_parameter_aclcheck(name, role, ACL_SET) == ACLCHECK_OK;
}

/* The oid of one of our own relations; an error when the extension is gone. */
Oid
CqrsEsRelid(const char *relname)
{
	Oid			nspoid = get_namespace_oid(CQRS_ES_SCHEMA, true);
	Oid			relid = OidIsValid(nspoid) ? get_relname_relid(relname, nspoid) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", CQRS_ES_SCHEMA, relname),
				 errhint("Run CREATE EXTENSION cqrs_es in this database.")));
	return relid;
}

/* "type/id", for messages; palloc'd. */
char *
StreamName(const StreamKey *key)
{
	return psprintf("%s/%s", text_to_cstring(key->aggregate_type),
					text_to_cstring(key->aggregate_id));
}

/*
 * An argument that must be a text of 1 to max_bytes bytes, detoasted.  `what`
 * names it in messages ("aggregate type").  Keys are bounded because they
 * share one index entry, which cannot exceed a third of a page.
 * Raises 22004 (NULL), 22023 (empty), 22001 (too long).
 */
text *
RequiredText(NullableDatum arg, const char *what, int max_bytes)
{
	text	   *value;

	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	value = DatumGetTextPP(arg.value);
	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (VARSIZE_ANY_EXHDR(value) > (Size) max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long", what),
				 errdetail("It has %zu bytes; at most %d are possible.",
						   (Size) VARSIZE_ANY_EXHDR(value), max_bytes)));
	return value;
}

/*
 * Is this an error that code of the user did not make: a race to be retried
 * (40xxx), lack of resources (53xxx), intervention (57xxx), the system (58xxx),
 * the server (XXxxx)?  Such errors are never swallowed or renamed.
 */
bool
ErrorIsNotUsers(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR);
}
