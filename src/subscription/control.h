/*-------------------------------------------------------------------------
 * control.h
 *	  Subscriptions are paused, resumed, and set to another position.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_CONTROL_H
#define CQRS_ES_CONTROL_H

extern void ControlReset(const text *name, int64 position);

#endif							/* CQRS_ES_CONTROL_H */
