/*-------------------------------------------------------------------------
 * setting.h
 *	  Defining our settings, without sorting all that the server has for each; and finding
 *	  any, without looking through them each time.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SETTING_H
#define CQRS_ES_SETTING_H

#include "utils/guc.h"

extern void SettingDefineBool(const char *name, const char *short_desc, const char *long_desc,
							  bool *variable, bool default_value, GucContext context, int flags);
extern void SettingDefineInt(const char *name, const char *short_desc, const char *long_desc,
							 int *variable, int default_value, int least, int most,
							 GucContext context, int flags);
extern void SettingDefineString(const char *name, const char *short_desc, const char *long_desc,
								char **variable, const char *default_value, GucContext context,
								int flags, GucStringCheckHook check);
extern struct config_generic *SettingFind(const char *name, int *place);

#endif							/* CQRS_ES_SETTING_H */
