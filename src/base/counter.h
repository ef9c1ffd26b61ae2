/*-------------------------------------------------------------------------
 * counter.h
 *	  Counting for whoever monitors.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_COUNTER_H
#define CQRS_ES_COUNTER_H

extern void CounterAdd(const char *table, int64 amount, bool is_hit);

#endif							/* CQRS_ES_COUNTER_H */
