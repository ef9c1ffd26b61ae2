/*-------------------------------------------------------------------------
 * personal_data.h
 *	  Members of payloads that are stored encrypted, under a key of whom they are about.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PERSONAL_DATA_H
#define CQRS_ES_PERSONAL_DATA_H

#include "base/json_pointer.h"
#include "log/append_request.h"
#include "log/events.h"

/* What else may have something in clear; an error refuses the definition of these members. */
typedef void (*PersonalDataCheck) (const text *event_type, const JsonPointer *members, int n);

extern void PersonalDataInit(void);
extern void PersonalDataSetCheck(PersonalDataCheck check);
extern bool PersonalDataConcerns(const Event *event);
extern void PersonalDataProtect(AppendRequest *append);
extern Datum PersonalDataProtected(const Event *event);
extern void PersonalDataOpen(Event *event);
extern void PersonalDataShow(Event *event);
extern void PersonalDataHide(Event *event);
extern bool PersonalDataSeenBy(Oid role);
extern bool PersonalDataHides(Oid role);
extern bool PersonalDataHas(const text *event_type, const JsonPointer *path);
extern char *PersonalDataCondition(const char *event_type);
extern ArrayType *PersonalDataPointers(void);
extern bool PersonalDataLose(const Event *event, const text *subject, const pg_uuid_t *keys, int nkeys,
							 Event *after);
extern void PersonalDataLock(void);

#endif							/* CQRS_ES_PERSONAL_DATA_H */
