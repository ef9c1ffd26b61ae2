/*-------------------------------------------------------------------------
 * fixed_settings.h
 *	  Settings under which everything runs that runs for everyone.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_FIXED_SETTINGS_H
#define CQRS_ES_FIXED_SETTINGS_H

extern void SettingsFix(int *guc_level);
extern void SettingsRestore(int guc_level);

#endif							/* CQRS_ES_FIXED_SETTINGS_H */
