/*-------------------------------------------------------------------------
 * publisher.h
 *	  Saying to subscribers how far the log is settled here.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PUBLISHER_H
#define CQRS_ES_PUBLISHER_H

#include "datatype/timestamp.h"

extern int64 PublisherTell(TimestampTz deadline);

#endif							/* CQRS_ES_PUBLISHER_H */
