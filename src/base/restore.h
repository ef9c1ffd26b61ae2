/*-------------------------------------------------------------------------
 * restore.h
 *	  Is a dump being restored over this database?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RESTORE_H
#define CQRS_ES_RESTORE_H

extern bool RestoreDrops(void);

#endif							/* CQRS_ES_RESTORE_H */
