/*-------------------------------------------------------------------------
 * compiled_function.c
 *	  Functions in PL/pgSQL that were compiled before a definer's code calls them.
 *
 * PL/pgSQL compiles a function at its first call in a session and keeps it.  The
 * statements in it are looked up again under another search_path, but the types of its
 * variables are those that their names stood for then.  So whoever may call a function
 * of somebody else, as everybody may unless that is revoked, can call it first, with a
 * domain of the right name in front (a temporary one stands in front of pg_catalog's
 * text).  Later a handler calls the function, and what goes into the variable goes
 * through the check of that domain, which runs with the rights of the handler's definer.
 *
 * PL/pgSQL tells whoever asks to be told, as debuggers do, of each function before it runs.
 * Where a definer's code runs, the types of its variables are looked at then.  A type is
 * all right when its owner could act as the definer anyway; when it is the one that its name
 * stands for now; or when nobody who has had a say in this session could have put it there.
 * Else the function is refused, and compiled anew when it is called next.
 *
 * Functions that are SECURITY DEFINER themselves see to themselves: they need a
 * search_path of their own, as everywhere.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "plpgsql.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/compiled_function.h"
#include "base/role_switch.h"

/* what we are told by, and who was told before us */
static PLpgSQL_plugin plugin;
static PLpgSQL_plugin *previous = NULL;

static void look_at_function(PLpgSQL_execstate *estate, PLpgSQL_function *function);
static Oid	type_of(const PLpgSQL_datum *datum);
static bool is_right(Oid type);
static bool is_meant(Oid type, const char *name, Oid schema);
static bool may_be_planted(Oid owner);
static bool may_plant(Oid role, Oid owner);
pg_noreturn static void refuse(PLpgSQL_function *function, Oid type);

void
CompiledFunctionInit(void)
{
	PLpgSQL_plugin **told = (PLpgSQL_plugin **) find_rendezvous_variable("PLpgSQL_plugin");

	previous = *told;
	if (previous)
		plugin = *previous;
	plugin.func_setup = look_at_function;
	*told = &plugin;
}

/* Before a function runs: 42P17 when it must not. */
static void
look_at_function(PLpgSQL_execstate *estate, PLpgSQL_function *function)
{
	int			i;

	if (previous)
	{
		previous->error_callback = plugin.error_callback;
		previous->assign_expr = plugin.assign_expr;
		previous->assign_value = plugin.assign_value;
		previous->eval_datum = plugin.eval_datum;
		previous->cast_value = plugin.cast_value;
		if (previous->func_setup)
			previous->func_setup(estate, function);
	}
	if (!RoleSwitchIsDefiner())
		return;
	for (i = 0; i < function->ndatums; i++)
	{
		Oid			type = type_of(function->datums[i]);

		if (type >= FirstNormalObjectId && !is_right(type))
			refuse(function, type);
	}
}

/* Of a variable; InvalidOid for what has none, or takes any. */
static Oid
type_of(const PLpgSQL_datum *datum)
{
	switch (datum->dtype)
	{
		case PLPGSQL_DTYPE_VAR:
		case PLPGSQL_DTYPE_PROMISE:
			return ((const PLpgSQL_var *) datum)->datatype->typoid;
		case PLPGSQL_DTYPE_REC:
			return ((const PLpgSQL_rec *) datum)->rectypeid;
		default:
			return InvalidOid;
	}
}

/* May a variable of the current role's, which is the definer, be of this type? */
static bool
is_right(Oid type)
{
	Oid			element = get_element_type(type);
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(OidIsValid(element) ? element : type));
	Form_pg_type form;
	bool		right;

	/* what is gone cannot be used either */
	if (!HeapTupleIsValid(tuple))
		return true;
	form = (Form_pg_type) GETSTRUCT(tuple);
	right = has_privs_of_role(form->typowner, GetUserId()) ||
		is_meant(form->oid, NameStr(form->typname), form->typnamespace) ||
		(!isAnyTempNamespace(form->typnamespace) && !may_be_planted(form->typowner));
	ReleaseSysCache(tuple);
	return right;
}

/* Is it what its name stands for now, and in all sessions? */
static bool
is_meant(Oid type, const char *name, Oid schema)
{
	return !isAnyTempNamespace(schema) && TypenameGetTypid(name) == type;
}

/*
 * Could this owner's type have been put in front by somebody who had a say in this session, and
 * cannot act as the current role?
 */
static bool
may_be_planted(Oid owner)
{
	ListCell   *lc;

	foreach(lc, RoleSwitchPastDefiners())
		if (may_plant(lfirst_oid(lc), owner))
		return true;
	return may_plant(GetSessionUserId(), owner) || may_plant(GetOuterUserId(), owner);
}

static bool
may_plant(Oid role, Oid owner)
{
	return !superuser_arg(role) && has_privs_of_role(role, owner) &&
		!has_privs_of_role(role, GetUserId());
}

/* It is compiled anew when it is called next. */
static void
refuse(PLpgSQL_function *function, Oid type)
{
	compat_function_xmin(function) = InvalidTransactionId;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("function %s was compiled with type %s",
					OidIsValid(function->fn_oid) ? format_procedure_qualified(function->fn_oid) : function->fn_signature,
					format_type_be_qualified(type)),
			 errdetail("It was first called in this session with another search_path than that of who defined what calls it now."),
			 errhint("Try again. Give the function a search_path of its own, with ALTER FUNCTION ... SET search_path.")));
}
