/*-------------------------------------------------------------------------
 * errors.h
 *	  Every SQLSTATE of our own.  docs/reference.md has the list, with causes.
 *
 * Class "QE" lies in the range the SQL standard leaves to implementations
 * (5-9, I-Z) and is used neither by PostgreSQL nor by its contrib modules.
 * Conditions PostgreSQL has a code for (null value, bad parameter, read-only
 * transaction, serialization failure, missing privilege) keep that code.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ERRORS_H
#define CQRS_ES_ERRORS_H

#include "utils/elog.h"

/* the log */
#define ERRCODE_WRONG_EXPECTED_VERSION	MAKE_SQLSTATE('Q','E','0','0','1')
#define ERRCODE_EVENT_ID_CONFLICT		MAKE_SQLSTATE('Q','E','0','0','2')
#define ERRCODE_SEQUENCE_HOLE			MAKE_SQLSTATE('Q','E','0','0','3')
#define ERRCODE_APPEND_ONLY				MAKE_SQLSTATE('Q','E','0','0','4')
#define ERRCODE_APPEND_CONDITION_FAILED	MAKE_SQLSTATE('Q','E','0','0','5')
#define ERRCODE_STREAM_CLOSED			MAKE_SQLSTATE('Q','E','0','0','6')
#define ERRCODE_TENANT_REQUIRED			MAKE_SQLSTATE('Q','E','0','0','7')
#define ERRCODE_STREAM_DELETED			MAKE_SQLSTATE('Q','E','0','0','8')

/* aggregates */
#define ERRCODE_UNDECLARED_AGGREGATE	MAKE_SQLSTATE('Q','E','1','0','1')
#define ERRCODE_OPERATION_FAILED		MAKE_SQLSTATE('Q','E','1','0','2')
#define ERRCODE_STRICT_AGGREGATE		MAKE_SQLSTATE('Q','E','1','0','3')

/* commands */
#define ERRCODE_COMMAND_REJECTED		MAKE_SQLSTATE('Q','E','3','0','1')
#define ERRCODE_UNDEFINED_COMMAND		MAKE_SQLSTATE('Q','E','3','0','2')

/* boundaries */
#define ERRCODE_UNDECLARED_BOUNDARY		MAKE_SQLSTATE('Q','E','5','0','1')

/* projections */
#define ERRCODE_PROJECTION_FAILED		MAKE_SQLSTATE('Q','E','2','0','1')
#define ERRCODE_HANDLER_DEPTH			MAKE_SQLSTATE('Q','E','2','0','2')

/* subscriptions */
#define ERRCODE_BATCH_NOT_YOURS			MAKE_SQLSTATE('Q','E','4','0','1')
#define ERRCODE_UNDEFINED_SUBSCRIPTION	MAKE_SQLSTATE('Q','E','4','0','2')
#define ERRCODE_POSITION_AHEAD			MAKE_SQLSTATE('Q','E','4','0','4')

/* a log in several databases */
#define ERRCODE_LOG_FOLLOWS				MAKE_SQLSTATE('Q','E','6','0','1')
#define ERRCODE_LOG_HANDED_OVER			MAKE_SQLSTATE('Q','E','6','0','2')
#define ERRCODE_LOG_NOT_HANDED_OVER		MAKE_SQLSTATE('Q','E','6','0','3')
#define ERRCODE_PUBLISHER_UNFIT			MAKE_SQLSTATE('Q','E','6','0','4')

/* tags */
#define ERRCODE_TAG_WITHOUT_VALUE		MAKE_SQLSTATE('Q','E','5','0','2')

/* personal data */
#define ERRCODE_KEY_UNAVAILABLE			MAKE_SQLSTATE('Q','E','7','0','1')
#define ERRCODE_SUBJECT_FORGOTTEN		MAKE_SQLSTATE('Q','E','7','0','2')
#define ERRCODE_PERSONAL_DATA_UNFIT		MAKE_SQLSTATE('Q','E','7','0','3')

/* several servers */
#define ERRCODE_DISTRIBUTED_BY_HAND		MAKE_SQLSTATE('Q','E','6','0','6')
#define ERRCODE_FOREIGN_SHARD			MAKE_SQLSTATE('Q','E','6','0','5')
#define ERRCODE_NOT_AT_HOME				MAKE_SQLSTATE('Q','E','6','0','7')
#define ERRCODE_NOT_IN_DISTRIBUTED_LOG	MAKE_SQLSTATE('Q','E','6','0','8')
#define ERRCODE_NODE_NOT_ADMITTED		MAKE_SQLSTATE('Q','E','6','0','9')

extern bool ErrorIsNotUsers(int sqlerrcode);

#endif							/* CQRS_ES_ERRORS_H */
