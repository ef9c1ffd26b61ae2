/*-------------------------------------------------------------------------
 * state_rules.c
 *	  How a state comes of events, and who has such rules.
 *
 * Rules are an initial state, reducers (reducer.c) and the upcasters.  An aggregate
 * type has them, for the states of its streams; and what is declared in rooms above and
 * folds events, too, has them in the same way.  Such owners register themselves at
 * Init.  They share one name space, since reducers and commands are defined for a name,
 * whosever it is.
 *
 * The fingerprint covers the initial state, the event types, their operations,
 * every function's signature and source, and all upcasters.  A snapshot made under
 * another fingerprint is never used.  It does not see into functions that a reducer
 * calls.  It covers when the owner was declared, too: an append that saves a snapshot
 * beside its drop may leave that behind, for one that is declared anew.
 *
 * Owners of different kinds stand in different tables, and no unique index keeps a name
 * from being declared twice.  So who declares or drops one locks the name first, to the
 * end of the transaction; and then looks with whom of the others it might be.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/registry.h"
#include "base/sha256.h"
#include "log/upcast.h"
#include "aggregate/state_rules.h"

/* changes when the fold itself changes what it makes of the same declarations */
#define FOLD_RULES "cqrs_es fold 3"

/* advisory locks of users have 1 or 2 in the fourth field of their tag */
#define NAME_LOCK_CLASS	0xDB

#define MAX_PARTS	4
#define MAX_OWNERS	4

static const StateRulesPart *parts[MAX_PARTS];
static int	nparts = 0;
static const StateOwner *owners[MAX_OWNERS];
static int	nowners = 0;

pg_noreturn static void report_no_owner(const text *name);

/* A part of rules; called by Inits only, the order of calls is the order of work. */
void
StateRulesRegister(const StateRulesPart *part)
{
	if (nparts >= MAX_PARTS)
		elog(ERROR, "too many parts of the rules of states");
	parts[nparts++] = part;
}

/* What has rules; called by Inits only. */
void
StateRulesRegisterOwner(const StateOwner *owner)
{
	if (nowners >= MAX_OWNERS)
		elog(ERROR, "too many owners of rules of states");
	owners[nowners++] = owner;
}

/*-------------------------------------------------------------------------
 * loading and dropping
 *-------------------------------------------------------------------------
 */

/*
 * Load the rules of an owner, whose row is given, for its entry in a registry cache; its
 * loader calls this.  What they point to is allocated in `memory`.
 */
void
StateRulesLoad(StateRules *rules, const text *owner, MemoryContext memory,
			   const StateRulesRow *row)
{
	Jsonb	   *initial = row->initial_state;
	StringInfoData source;
	StringInfoData row_versions;
	const char *upcaster_rows;
	MemoryContext caller;
	int			i;

	rules->initial_state = MemoryContextAlloc(memory, VARSIZE(initial));
	memcpy(rules->initial_state, initial, VARSIZE(initial));
	initStringInfo(&source);
	initStringInfo(&row_versions);
	StateRulesAddSource(&source, FOLD_RULES);
	StateRulesAddSource(&source, JsonbToCString(NULL, &initial->root, VARSIZE(initial)));
	StateRulesAddSource(&source, psprintf(INT64_FORMAT, row->created_at));
	if (row->source)
		StateRulesAddSource(&source, row->source);
	appendStringInfoString(&row_versions, row->row_version);
	for (i = 0; i < nparts; i++)
		if (parts[i]->load)
			parts[i]->load(rules, owner, memory, &source, &row_versions);
	StateRulesAddSource(&source, UpcastFingerprint(&upcaster_rows));
	appendStringInfoString(&row_versions, upcaster_rows);
	rules->row_versions = MemoryContextStrdup(memory, row_versions.data);
	caller = MemoryContextSwitchTo(memory);
	rules->fingerprint = Sha256Bytea(source.data, source.len);
	MemoryContextSwitchTo(caller);
}

/* Add a text with its end, so that no two lists of texts are the same in a row. */
void
StateRulesAddSource(StringInfo source, const char *value)
{
	appendBinaryStringInfo(source, value, strlen(value) + 1);
}

/* The owner has been dropped: all that belongs to it goes, too. */
void
StateRulesDrop(const text *owner)
{
	int			i;

	for (i = 0; i < nparts; i++)
		if (parts[i]->drop)
			parts[i]->drop(owner);
}

/*-------------------------------------------------------------------------
 * names
 *-------------------------------------------------------------------------
 */

/*
 * For who declares or drops an owner, before anything else: nobody else does so with this
 * name until the end of the transaction.
 */
void
StateRulesLockName(const text *name)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
										   VARSIZE_ANY_EXHDR(name), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, NAME_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Behind StateRulesLockName: 42710 when an owner of another kind has the name. */
void
StateRulesRequireFreeName(const text *name, const StateOwner *for_owner)
{
	int			i;

	for (i = 0; i < nowners; i++)
		if (owners[i] != for_owner && owners[i]->lock(name, false))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("%s \"%s\" exists already", owners[i]->noun, text_to_cstring(name)),
					 errdetail("Reducers and commands are defined for a name, so no other declaration can have it.")));
}

/*
 * For who defines or drops something of an owner: it is declared (QE101), and stays so
 * until the end of the transaction.  Locks its row, and waits for who drops it, or changes
 * something of it.  40001 above READ COMMITTED when it is dropped meanwhile.
 */
const StateOwner *
StateRulesLockOwner(const text *name)
{
	const StateOwner *owner = StateRulesLockIfOwned(name);

	if (owner == NULL)
		report_no_owner(name);
	return owner;
}

/* The same; NULL when it is not declared. */
const StateOwner *
StateRulesLockIfOwned(const text *name)
{
	int			i;

	for (i = 0; i < nowners; i++)
		if (owners[i]->lock(name, true))
			return owners[i];
	return NULL;
}

/*
 * The same as StateRulesLockOwner, to drop something of it; where it is not declared a
 * notice and NULL, with if_exists.
 */
const StateOwner *
StateRulesLockForDrop(const text *name, bool if_exists)
{
	const StateOwner *owner = StateRulesLockIfOwned(name);

	if (owner == NULL && !if_exists)
		report_no_owner(name);
	if (owner == NULL)
		StateRulesReportMissing(name, true);
	return owner;
}

/* QE101 to who defines or drops something of what might be of any kind. */
static void
report_no_owner(const text *name)
{
	StringInfoData others;
	int			i;

	initStringInfo(&others);
	for (i = 1; i < nowners; i++)
		appendStringInfo(&others, "%s a %s", i > 1 ? " or" : "", owners[i]->noun);
	ereport(ERROR,
			(errcode(ERRCODE_UNDECLARED_AGGREGATE),
			 errmsg("%s \"%s\" is not declared", owners[0]->noun, text_to_cstring(name)),
			 errdetail("Nor is%s of that name.", others.data),
			 errhint("Declare it with SELECT cqrs_es.create_aggregate(%s), or with create_boundary().",
					 quote_literal_cstr(text_to_cstring(name)))));
}

/* QE101 to who wants to drop it: a wrong name, and none that is to be declared. */
void
StateRulesReportMissing(const text *name, bool if_exists)
{
	RegistryReportMissing(if_exists, ERRCODE_UNDECLARED_AGGREGATE,
						  "Those that are stand in the table cqrs_es.aggregates.",
						  psprintf("aggregate type \"%s\" is not declared", text_to_cstring(name)));
}

/*
 * Make what is declared what `values` say, the first of which is its name, and tell what that
 * changed; nothing is written when it is so already.  False when it is not declared.
 * `compare` finds and locks its row, with a text of what differs (empty: nothing) in its first
 * column; `alter` changes it.  Both have these parameters.
 */
bool
StateRulesChange(const StateOwner *owner, InternalQuery *compare, InternalQuery *alter,
				 Datum *values, const char *nulls, bool tell)
{
	char	   *differences = NULL;

	SPI_connect();
	if (RegistryWriteRows(compare, values, nulls) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		differences = SPI_getvalue(row.tuple, row.desc, 1);
		if (differences[0] != '\0')
		{
			(void) RegistryWrite(alter, values, nulls);
			if (tell)
				ereport(NOTICE,
						(errmsg("%s \"%s\" was declared already, and is changed",
								owner->noun, TextDatumGetCString(values[0])),
						 errdetail_internal("%s.", differences)));
		}
	}
	SPI_finish();
	return differences != NULL;
}

/* QE101 to who needs it. */
void
StateRulesReportUndeclared(const text *type)
{
	char	   *name = text_to_cstring(type);

	ereport(ERROR,
			(errcode(ERRCODE_UNDECLARED_AGGREGATE),
			 errmsg("aggregate type \"%s\" is not declared", name),
			 errdetail("Events of any type can be appended and read; state, snapshots and reducers need a declaration."),
			 errhint("Declare it with SELECT cqrs_es.create_aggregate(%s).",
					 quote_literal_cstr(name))));
}
