/*-------------------------------------------------------------------------
 * command_declaration.c
 *	  Commands: declared, dropped, found.
 *
 * A command belongs to what has states to decide on: an aggregate type, or another
 * owner of rules of states (state_rules.c).  It is decided by an SQL expression or a
 * function (decider.c), which is kept with who defined it.  Of which kind the owner is
 * decides which names an expression may use, so the commands of each are cached apart.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/text.h"
#include "aggregate/aggregate.h"
#include "aggregate/state_rules.h"
#include "command/command_declaration.h"
#include "command/decider.h"

PG_FUNCTION_INFO_V1(cqrs_es_define_command);
PG_FUNCTION_INFO_V1(cqrs_es_define_command_function);
PG_FUNCTION_INFO_V1(cqrs_es_drop_command);

/* What is declared: a command, ... */
typedef struct DeclaredCommand
{
	text	   *type;
	DefinerStatement *decider;
} DeclaredCommand;

/* ... and those of an owner. */
typedef struct OwnedCommands
{
	RegistryEntry entry;		/* its key is the owner's name */
	int			n;
	DeclaredCommand *commands;
} OwnedCommands;

static void load_stream_commands(void *entry, const text *owner, MemoryContext memory);
static void load_other_commands(void *entry, const text *owner, MemoryContext memory);

static RegistryCache stream_commands = {
	.name = "cqrs_es commands",.entry_size = sizeof(OwnedCommands),.load = load_stream_commands
};
static RegistryCache other_commands = {
	.name = "cqrs_es commands on no stream",.entry_size = sizeof(OwnedCommands),.load = load_other_commands
};

static const StateOwner *lock_owner(FunctionCallInfo fcinfo);
static void save_command(FunctionCallInfo fcinfo, const StateOwner *owner, const char *expression,
						 const char *search_path);
static void drop_commands(const text *owner);
static void load_commands(OwnedCommands *commands, const text *owner, MemoryContext memory,
						  bool of_streams);

void
CommandDeclarationInit(void)
{
	static const StateRulesPart part = {.drop = drop_commands};

	RegistryRegisterOfAllNodes("commands");
	StateRulesRegister(&part);
}

/* SQL: define_command(aggregate_type, command_type, decider text), an expression or a function */
Datum
cqrs_es_define_command(PG_FUNCTION_ARGS)
{
	const StateOwner *owner = lock_owner(fcinfo);
	char	   *search_path = DefinerSearchPath();
	char	   *decider;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("decider must not be null")));
	decider = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (DeciderIsFunction(decider))
		decider = DeciderCall(DeciderFunction(decider));
	save_command(fcinfo, owner, decider, search_path);
	PG_RETURN_VOID();
}

/* SQL: define_command(aggregate_type, command_type, decider regprocedure) */
Datum
cqrs_es_define_command_function(PG_FUNCTION_ARGS)
{
	const StateOwner *owner = lock_owner(fcinfo);
	char	   *search_path = DefinerSearchPath();

	save_command(fcinfo, owner, DeciderCall(fcinfo->args[2]), search_path);
	PG_RETURN_VOID();
}

/* SQL: drop_command(aggregate_type, command_type, if_exists) */
Datum
cqrs_es_drop_command(PG_FUNCTION_ARGS)
{
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(type), PointerGetDatum(command_type)};
	const StateOwner *owner;

	ReadOnlyPrevent(fcinfo);
	ExtensionRefuseOlder();
	owner = StateRulesLockIfOwned(type);
	if (!RegistryDrop(&row, &drop, values))
		RegistryReportMissing(RegistryIfExists(fcinfo->args[2]), ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("command \"%s\" of %s \"%s\" does not exist",
									   text_to_cstring(command_type),
									   owner ? owner->noun : AggregateOwner.noun,
									   text_to_cstring(type)));
	PG_RETURN_VOID();
}

/* Before anything is looked at: lock whose command it is to be; QE101. */
static const StateOwner *
lock_owner(FunctionCallInfo fcinfo)
{
	ReadOnlyPrevent(fcinfo);
	return StateRulesLockOwner(TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES));
}

/* Check an expression and store it, in place of an earlier one; the same one is left as it is. */
static void
save_command(FunctionCallInfo fcinfo, const StateOwner *owner, const char *expression,
			 const char *search_path)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.commands"
		" (aggregate_type, command_type, decider, definer, search_path)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (aggregate_type, command_type) DO UPDATE SET"
		" decider = excluded.decider, definer = excluded.definer, definer_name = excluded.definer_name,"
		" search_path = excluded.search_path",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2 AND decider OPERATOR(pg_catalog.=) $3"
		" AND definer OPERATOR(pg_catalog.=) $4 AND search_path OPERATOR(pg_catalog.=) $5",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[5] = {PointerGetDatum(type), PointerGetDatum(command_type),
		CStringGetTextDatum(expression), ObjectIdGetDatum(GetUserId()),
		CStringGetTextDatum(search_path)};
	Definer		definer = {.role = GetUserId(),.search_path = search_path};

	DefinerStatementDefine(DeciderMake(expression, &definer, owner->of_streams));
	if (!RegistryHas(&same, values, NULL))
		(void) RegistryWrite(&query, values, NULL);
}

/* They go with whose they are. */
static void
drop_commands(const text *owner)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(owner);

	(void) RegistryWrite(&query, &value, NULL);
}

/* How a command of an owner of this kind is decided; QE302. */
DefinerStatement *
CommandDeclarationDecider(const StateOwner *owner, const text *name, const text *command_type)
{
	OwnedCommands *commands = RegistryLookup(owner->of_streams ? &stream_commands : &other_commands,
											 name);
	int			i;

	for (i = 0; i < commands->n; i++)
		if (TextEqual(commands->commands[i].type, command_type))
			return commands->commands[i].decider;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COMMAND),
			 errmsg("command \"%s\" of %s \"%s\" is not defined",
					text_to_cstring(command_type), owner->noun, text_to_cstring(name)),
			 errhint("Define it with define_command().")));
}

/* Fill the caches. */
static void
load_stream_commands(void *entry, const text *owner, MemoryContext memory)
{
	load_commands(entry, owner, memory, true);
}

static void
load_other_commands(void *entry, const text *owner, MemoryContext memory)
{
	load_commands(entry, owner, memory, false);
}

static void
load_commands(OwnedCommands *commands, const text *owner, MemoryContext memory, bool of_streams)
{
	static InternalQuery query = {
		.sql = "SELECT command_type, decider, " REGISTRY_ROLE("definer", "definer_name") " AS definer,"
		" definer_name, search_path FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(owner);
	uint64		n = RegistryRead(&query, &value);
	MemoryContext spi = MemoryContextSwitchTo(memory);
	uint64		i;

	commands->commands = palloc(Max(n, 1) * sizeof(DeclaredCommand));
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		Definer		definer = {
			.role = DatumGetObjectId(InternalQueryDatum(&row, "definer", NULL)),
			.name = InternalQueryText(&row, "definer_name"),
			.search_path = InternalQueryText(&row, "search_path")
		};

		commands->commands[i].type = cstring_to_text(InternalQueryText(&row, "command_type"));
		commands->commands[i].decider = DeciderMake(InternalQueryText(&row, "decider"),
													&definer, of_streams);
	}
	commands->n = (int) n;
	MemoryContextSwitchTo(spi);
}
