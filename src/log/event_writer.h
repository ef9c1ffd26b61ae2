/*-------------------------------------------------------------------------
 * event_writer.h
 *	  Puts the events of one append into the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_WRITER_H
#define CQRS_ES_EVENT_WRITER_H

#include "base/compat.h"
#include "log/event_scan.h"

extern bool EventWriterInsert(Relation rel, Event *events, int nevents, bool plainly);
extern StreamTip EventWriterTip(Relation rel, const StreamKey *key);

#endif							/* CQRS_ES_EVENT_WRITER_H */
