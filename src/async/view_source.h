/*-------------------------------------------------------------------------
 * view_source.h
 *	  A view that is to read other tables than it does.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_VIEW_SOURCE_H
#define CQRS_ES_VIEW_SOURCE_H

#include "nodes/pg_list.h"

/* A table that is read, and the one that is to be read instead. */
typedef struct ViewSource
{
	Oid			table;
	Oid			instead;
} ViewSource;

extern void ViewSourceCheck(Oid view, const ViewSource *sources, int n);
extern void ViewSourceReplace(Oid view, const ViewSource *sources, int n);
extern List *ViewSourceReaders(const ViewSource *sources, int n);

#endif							/* CQRS_ES_VIEW_SOURCE_H */
