/*-------------------------------------------------------------------------
 * fixed_settings.c
 *	  Settings under which everything runs that runs for everyone.
 *
 * A handler, decider, reducer or upcaster is written by one, runs in the
 * sessions of others, and what it makes is shared: read models, snapshots, the
 * state that a command is decided on.  So it must mean and give the same in all
 * of them, today and in a rebuild.  What a session may set that changes how a
 * text is read, or which text or value comes out, is therefore fixed while such
 * things are parsed, planned and run, and while fingerprints are made of them.
 *
 * The values are the server's own defaults, as far as those are the same
 * everywhere: not those of the definer's session, which would be one more thing
 * to keep, to dump and to look up.  docs/reference.md has the list.
 *
 * Left to the session is what cannot change a result (time limits, memory, the
 * planner), what speaks to its client (client_encoding, lc_messages), and what
 * only superusers set for good reasons.
 *
 * They are set the way a function with a SET clause does it.  To see that all
 * are as they should be costs less than a look into a cache, so whoever begins
 * something for everyone fixes them once, and what runs within finds them so.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/fixed_settings.h"
#include "base/setting.h"

/* Setting and value. */
static const char *const fixed_values[][2] = {
	/* how a text is read */
	{"standard_conforming_strings", "on"},
	{"backslash_quote", "safe_encoding"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	{"xmloption", "content"},
	{"timezone_abbreviations", "Default"},
	/* how a value is written */
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"quote_all_identifiers", "off"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	/* what is found, and what follows */
	{"default_text_search_config", "pg_catalog.simple"},
	{"gin_fuzzy_search_limit", "0"},
	{"row_security", "on"},
	{"session_replication_role", "origin"},
	/* what a client would be shown: statements that are none of its business */
	{"debug_print_parse", "off"},
	{"debug_print_rewritten", "off"},
	{"debug_print_plan", "off"},
};

/* The same for PL/pgSQL, whose settings come when it is loaded, maybe within what runs. */
static const char *const language_values[][2] = {
	{"plpgsql.check_asserts", "on"},
	{"plpgsql.print_strict_params", "off"},
	{"plpgsql.extra_errors", "none"},
	{"plpgsql.extra_warnings", "none"},
};

/* The same, as the server has them. */
typedef struct FixedSetting
{
	const char *name;
	const char *value;
	struct config_generic *setting; /* NULL: is not defined yet */
	int			number;			/* the value, unless it is a string */
	int			place;			/* see SettingFind */
} FixedSetting;

static FixedSetting fixed_settings[lengthof(fixed_values)];
static FixedSetting language_settings[lengthof(language_values)];

static void fix_setting(const struct config_generic *setting, const char *name, const char *value,
						int *guc_level);
static void learn_settings(void);
static struct config_generic *find_setting(FixedSetting *fixed);
static int	setting_number(const FixedSetting *fixed);
static bool is_fixed(const FixedSetting *fixed);
static bool is_unset(const FixedSetting *fixed, const struct config_generic *setting);

/*
 * Fix the settings until the given nesting level of settings ends; one begins
 * when that is 0.  An error restores them with the (sub)transaction's abort.
 */
void
FixedSettingsSet(int *guc_level)
{
	size_t		i;

	learn_settings();
	for (i = 0; i < lengthof(fixed_settings); i++)
		if (!is_fixed(&fixed_settings[i]))
			fix_setting(fixed_settings[i].setting, fixed_settings[i].name, fixed_settings[i].value,
						guc_level);
	for (i = 0; i < lengthof(language_settings); i++)
	{
		FixedSetting *fixed = &language_settings[i];
		struct config_generic *setting = find_setting(fixed);

		/* what nobody has set will have its default, which is ours */
		if (setting && !(fixed->setting ? is_fixed(fixed) : is_unset(fixed, setting)))
			fix_setting(setting, fixed->name, fixed->value, guc_level);
	}
}

static void
fix_setting(const struct config_generic *setting, const char *name, const char *value, int *guc_level)
{
	FixedSettingsBeginLevel(setting, guc_level);
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Before a setting is saved at a nesting level of settings: one begins when that is 0.  And
 * where what runs has set it there by itself, for the server does not save what was set, one
 * begins inside of it, which ends with it.
 */
void
FixedSettingsBeginLevel(const struct config_generic *setting, int *guc_level)
{
	int			level;

	if (*guc_level != 0 && (setting == NULL || setting->stack == NULL || setting->stack->state == GUC_SAVE))
		return;
	level = NewGUCNestLevel();
	if (*guc_level == 0)
		*guc_level = level;
}

/* End a level that FixedSettingsSet may have begun: the settings are the caller's again. */
void
FixedSettingsRestore(int guc_level)
{
	if (guc_level > 0)
		AtEOXact_GUC(true, guc_level);
}

static void
learn_settings(void)
{
	static bool known = false;
	size_t		i;

	if (known)
		return;
	for (i = 0; i < lengthof(language_settings); i++)
	{
		language_settings[i].name = language_values[i][0];
		language_settings[i].value = language_values[i][1];
	}
	for (i = 0; i < lengthof(fixed_settings); i++)
	{
		FixedSetting *fixed = &fixed_settings[i];

		fixed->name = fixed_values[i][0];
		fixed->value = fixed_values[i][1];
		if (find_setting(fixed) == NULL)
			elog(ERROR, "unknown setting \"%s\"", fixed->name);
	}
	known = true;
}

/*
 * The setting, looked up once.  One that was set before it was defined is found each time:
 * another takes its place when it is.
 */
static struct config_generic *
find_setting(FixedSetting *fixed)
{
	struct config_generic *setting = fixed->setting;

	if (setting == NULL)
	{
		setting = SettingFind(fixed->name, &fixed->place);
		if (setting && (setting->flags & GUC_CUSTOM_PLACEHOLDER) == 0)
		{
			fixed->setting = setting;
			fixed->number = setting_number(fixed);
		}
	}
	return setting;
}

/* The fixed value as the server keeps it; 0 for a string. */
static int
setting_number(const FixedSetting *fixed)
{
	bool		truth;
	int			number = 0;
	bool		parsed = true;

	switch (fixed->setting->vartype)
	{
		case PGC_BOOL:
			parsed = parse_bool(fixed->value, &truth);
			number = truth;
			break;
		case PGC_INT:
			parsed = parse_int(fixed->value, &number, 0, NULL);
			break;
		case PGC_ENUM:
			parsed = config_enum_lookup_by_name((struct config_enum *) fixed->setting,
												fixed->value, &number);
			break;
		default:
			break;
	}
	if (!parsed)
		elog(ERROR, "setting \"%s\" has no value \"%s\"", fixed->name, fixed->value);
	return number;
}

static bool
is_fixed(const FixedSetting *fixed)
{
	const char *string;

	switch (fixed->setting->vartype)
	{
		case PGC_BOOL:
			return *((struct config_bool *) fixed->setting)->variable == (fixed->number != 0);
		case PGC_INT:
			return *((struct config_int *) fixed->setting)->variable == fixed->number;
		case PGC_ENUM:
			return *((struct config_enum *) fixed->setting)->variable == fixed->number;
		case PGC_STRING:
			string = *((struct config_string *) fixed->setting)->variable;
			return string != NULL && strcmp(string, fixed->value) == 0;
		default:				/* not reached: none of another kind is fixed */
			return false;		/* not reached */
	}
}

/* The same of one that is not defined yet, so that it is a text; or nobody has set it. */
static bool
is_unset(const FixedSetting *fixed, const struct config_generic *setting)
{
	const char *string = *((const struct config_string *) setting)->variable;

	return string == NULL || strcmp(string, fixed->value) == 0;
}
