/*-------------------------------------------------------------------------
 * temporary_object.h
 *	  Does a query name anything of a temporary schema?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TEMPORARY_OBJECT_H
#define CQRS_ES_TEMPORARY_OBJECT_H

#include "nodes/nodes.h"

extern bool TemporaryObjectIn(Node *query);

#endif							/* CQRS_ES_TEMPORARY_OBJECT_H */
