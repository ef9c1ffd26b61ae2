/*-------------------------------------------------------------------------
 * early_setting.h
 *	  What our settings were given before this library was loaded.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EARLY_SETTING_H
#define CQRS_ES_EARLY_SETTING_H

/* A setting of ours, as it is known before it is defined. */
typedef struct EarlySetting
{
	const char *name;
	bool		restricted;		/* not everyone may set it (PGC_SUSET) */
	bool		(*is_valid) (const char *value);	/* NULL: the server may judge */
} EarlySetting;

extern void EarlySettingCheck(const EarlySetting *settings, int n);
extern bool EarlySettingIsBool(const char *value);

#endif							/* CQRS_ES_EARLY_SETTING_H */
