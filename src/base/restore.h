/*-------------------------------------------------------------------------
 * restore.h
 *	  Is a dump being restored into this database?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RESTORE_H
#define CQRS_ES_RESTORE_H

extern bool RestoreDrops(void);
extern void RestoreBringsRow(void);
extern bool RestoreIsUnderWay(void);

#endif							/* CQRS_ES_RESTORE_H */
