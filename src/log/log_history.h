/*-------------------------------------------------------------------------
 * log_history.h
 *	  Which log is this, and where has it jumped?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOG_HISTORY_H
#define CQRS_ES_LOG_HISTORY_H

extern void LogHistoryInit(void);
extern int64 LogHistoryJump(void);
extern int64 LogHistoryPassJumps(int64 position, int64 next);

#endif							/* CQRS_ES_LOG_HISTORY_H */
