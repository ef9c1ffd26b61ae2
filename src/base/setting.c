/*-------------------------------------------------------------------------
 * setting.c
 *	  Defining our settings, without sorting all that the server has for each; and finding
 *	  any, without looking through them each time.
 *
 * Until 15 the server keeps its settings in a list sorted by name, and sorts all of it
 * anew for each that is added: for ours that took half of the instructions of the first
 * append of a session.  So while one is added, all others in the list are one without a name,
 * which is before everything: the list is in order already, and of that the
 * server makes sure first.  Then the others are back, and the new one among them.  A setting that
 * somebody has set before it was defined has its place in the list, and keeps it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "base/compat.h"
#include "base/setting.h"

#if COMPAT_SORTS_SETTINGS

/* The list as it was, and where a new setting belongs in it. */
typedef struct SettingList
{
	struct config_generic **settings;	/* NULL: the setting has its place already */
	int			n;
	int			place;
} SettingList;

static struct config_generic nameless = {.name = ""};

static SettingList hide_list(const char *name);
static void show_list(const SettingList *before);
static bool is_place(struct config_generic *const *list, int n, const char *name, int place);
static int	find_place(struct config_generic *const *list, int n, const char *name);
static int	compare_names(const char *a, const char *b);

/* Defines a setting called `name`, and looks at no others. */
#define DEFINE(name, definition) \
	do { \
		SettingList before = hide_list(name); \
		PG_TRY(); \
		{ \
			definition; \
		} \
		PG_FINALLY(); \
		{ \
			show_list(&before); \
		} \
		PG_END_TRY(); \
	} while (0)

#else

#define DEFINE(name, definition)	definition

#endif

/* These are called by Inits only; what they do not have is as little as can be. */
void
SettingDefineBool(const char *name, const char *short_desc, const char *long_desc,
				  bool *variable, bool default_value, GucContext context, int flags)
{
	DEFINE(name, DefineCustomBoolVariable(name, short_desc, long_desc, variable, default_value,
										  context, flags, NULL, NULL, NULL));
}

void
SettingDefineInt(const char *name, const char *short_desc, const char *long_desc,
				 int *variable, int default_value, int least, int most, GucContext context, int flags)
{
	DEFINE(name, DefineCustomIntVariable(name, short_desc, long_desc, variable, default_value,
										 least, most, context, flags, NULL, NULL, NULL));
}

void
SettingDefineString(const char *name, const char *short_desc, const char *long_desc,
					char **variable, const char *default_value, GucContext context, int flags,
					GucStringCheckHook check)
{
	DEFINE(name, DefineCustomStringVariable(name, short_desc, long_desc, variable, default_value,
											context, flags, check, NULL, NULL));
}

/*
 * A setting, which may be one that has been set before it was defined; NULL: there is none of
 * that name.  *place is 0 at first, and the caller keeps it for when it looks for the same
 * again.  One that has been defined stays where it is for as long as the backend lives.
 */
struct config_generic *
SettingFind(const char *name, int *place)
{
#if COMPAT_SORTS_SETTINGS
	int			n;
	struct config_generic **list = compat_settings(&n);

	if (!is_place(list, n, name, *place))
		*place = find_place(list, n, name);
	return *place < n && compare_names(list[*place]->name, name) == 0 ? list[*place] : NULL;
#else
	return find_option(name, false, true, 0);
#endif
}

#if COMPAT_SORTS_SETTINGS

static SettingList
hide_list(const char *name)
{
	struct config_generic **list = get_guc_variables();
	SettingList before = {.n = GetNumConfigOptions()};
	int			i;

	before.place = find_place(list, before.n, name);
	if (before.place < before.n && compare_names(list[before.place]->name, name) == 0)
		return before;
	before.settings = palloc(before.n * sizeof(*list));
	memcpy(before.settings, list, before.n * sizeof(*list));
	for (i = 0; i < before.n; i++)
		list[i] = &nameless;
	return before;
}

/* The list may lie elsewhere, and is not longer where there was no memory. */
static void
show_list(const SettingList *before)
{
	struct config_generic **list = get_guc_variables();
	int			nnew = GetNumConfigOptions() - before->n;

	if (before->settings == NULL)
		return;
	if (nnew > 0)
		list[before->place] = list[before->n];
	memcpy(list, before->settings, before->place * sizeof(*list));
	memcpy(list + before->place + nnew, before->settings + before->place,
		   (before->n - before->place) * sizeof(*list));
	pfree(before->settings);
}

/* Does the list have, or would it have, the setting at this place? */
static bool
is_place(struct config_generic *const *list, int n, const char *name, int place)
{
	return place <= n &&
		(place == 0 || compare_names(list[place - 1]->name, name) < 0) &&
		(place == n || compare_names(list[place]->name, name) >= 0);
}

static int
find_place(struct config_generic *const *list, int n, const char *name)
{
	int			low = 0;

	while (low < n)
	{
		int			middle = (low + n) / 2;

		if (compare_names(list[middle]->name, name) < 0)
			low = middle + 1;
		else
			n = middle;
	}
	return low;
}

/* As the list is sorted: by bytes, but for the case of letters, and what is longer is behind. */
static int
compare_names(const char *a, const char *b)
{
	while (*a != '\0' && *b != '\0')
	{
		char		first = pg_ascii_tolower((unsigned char) *a++);
		char		second = pg_ascii_tolower((unsigned char) *b++);

		if (first != second)
			return first - second;
	}
	return (*a != '\0') - (*b != '\0');
}

#endif
