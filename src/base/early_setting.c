/*-------------------------------------------------------------------------
 * early_setting.c
 *	  What our settings were given before this library was loaded.
 *
 * The library is loaded when something of it is first used, which may be in the
 * middle of a session.  Until then the server takes any value of any setting
 * "cqrs_es.something" from anybody: by ALTER ROLE, in the connection's options, by
 * SET.  When the settings are defined it would drop what it should not have taken,
 * with a warning, and go on with another value than the client believes; with the
 * default even, when the value came with the connection and so kept out what
 * ALTER ROLE or postgresql.conf say.  A mistyped tenant's events would go to the
 * tenant without a name.
 *
 * So do not load while there is such a value.  An error here leaves the library
 * unloaded: the next use comes here again.  What is in postgresql.conf is left to
 * the server, which says there what is wrong with it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/early_setting.h"
#include "base/extension.h"

static const EarlySetting *find_known(const char *name, const EarlySetting *settings, int n);
static bool is_from_file(GucSource source);
static bool could_set(const char *name, GucContext context, Oid role);
static const char *invalid_value(const struct config_string *setting, const EarlySetting *known);
pg_noreturn static void report_unknown(const char *name, const EarlySetting *settings, int n);
pg_noreturn static void report_forged(const char *name);
pg_noreturn static void report_invalid(const char *name, const char *value);

/*
 * Before anything is defined: may all that was set before stay as it is?  Raises
 * 42704 for a setting that is none of ours, 42501 for a value from who may not set
 * it, 22023 for one that is not valid.
 */
void
EarlySettingCheck(const EarlySetting *settings, int n)
{
	int			nall;
	struct config_generic **all = compat_settings(&nall);
	int			i;

	for (i = 0; i < nall; i++)
	{
		const struct config_generic *setting = all[i];
		const EarlySetting *known;
		const char *invalid;

		if (pg_strncasecmp(setting->name, CQRS_ES_SCHEMA ".", strlen(CQRS_ES_SCHEMA ".")) != 0 ||
			(setting->flags & GUC_CUSTOM_PLACEHOLDER) == 0)
			continue;
		known = find_known(setting->name, settings, n);
		if (known == NULL)
		{
			if (!is_from_file(setting->source) || !is_from_file(setting->reset_source))
				report_unknown(setting->name, settings, n);
			continue;
		}
		if (known->restricted &&
			(!could_set(known->name, setting->scontext, setting->srole) ||
			 !could_set(known->name, setting->reset_scontext, setting->reset_srole)))
			report_forged(known->name);
		if (is_from_file(setting->source) && is_from_file(setting->reset_source))
			continue;
		invalid = invalid_value((const struct config_string *) setting, known);
		if (invalid)
			report_invalid(known->name, invalid);
	}
}

/* Is it a boolean, as SET takes it? */
bool
EarlySettingIsBool(const char *value)
{
	bool		result;

	return parse_bool(value, &result);
}

static const EarlySetting *
find_known(const char *name, const EarlySetting *settings, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		if (pg_strcasecmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

/* Or from nowhere. */
static bool
is_from_file(GucSource source)
{
	return source <= PGC_S_ARGV;
}

/* As the server will judge it when it knows that the setting is PGC_SUSET. */
static bool
could_set(const char *name, GucContext context, Oid role)
{
	return (context != PGC_USERSET && context != PGC_BACKEND) ||
		pg_parameter_aclcheck(name, role, ACL_SET) == ACLCHECK_OK;
}

/* A value that is not valid: the one of now, or one that it may go back to. NULL: none. */
static const char *
invalid_value(const struct config_string *setting, const EarlySetting *known)
{
	const GucStack *level;

	if (known->is_valid == NULL)
		return NULL;
	if (*setting->variable && !known->is_valid(*setting->variable))
		return *setting->variable;
	if (setting->reset_val && !known->is_valid(setting->reset_val))
		return setting->reset_val;
	for (level = setting->gen.stack; level; level = level->prev)
	{
		if (level->prior.val.stringval && !known->is_valid(level->prior.val.stringval))
			return level->prior.val.stringval;
		if (level->state == GUC_SET_LOCAL && level->masked.val.stringval &&
			!known->is_valid(level->masked.val.stringval))
			return level->masked.val.stringval;
	}
	return NULL;
}

static void
report_unknown(const char *name, const EarlySetting *settings, int n)
{
	StringInfoData names;
	int			i;

	initStringInfo(&names);
	for (i = 0; i < n; i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" : i == n - 1 ? " and " : ", ", settings[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("unrecognized configuration parameter \"%s\"", name),
			 errdetail("It was set in this session, for its role or database, or with the connection's options."),
			 errhint("Reset it. There are %s.", names.data)));
}

static void
report_forged(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to set parameter \"%s\"", name),
			 errdetail("It was set in this session or with the connection's options."),
			 errhint("Reset it, or connect without it.")));
}

static void
report_invalid(const char *name, const char *value)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for parameter \"%s\": \"%s\"", name, value),
			 errdetail("It was set in this session, for its role or database, or with the connection's options."),
			 errhint("Reset it, or set it to a valid value.")));
}
