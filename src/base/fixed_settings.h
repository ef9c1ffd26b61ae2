/*-------------------------------------------------------------------------
 * fixed_settings.h
 *	  Settings under which everything runs that runs for everyone.
 *
 * Our own settings, cqrs_es.*, are not here: each is defined by the Init of the file
 * it belongs to (src/module.c lists those).
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_FIXED_SETTINGS_H
#define CQRS_ES_FIXED_SETTINGS_H

struct config_generic;

extern void FixedSettingsSet(int *guc_level);
extern void FixedSettingsBeginLevel(const struct config_generic *setting, int *guc_level);
extern void FixedSettingsRestore(int guc_level);

#endif							/* CQRS_ES_FIXED_SETTINGS_H */
