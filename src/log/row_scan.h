/*-------------------------------------------------------------------------
 * row_scan.h
 *	  The rows of a heap in the order of an index, fetched page by page.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ROW_SCAN_H
#define CQRS_ES_ROW_SCAN_H

#include "access/htup.h"
#include "access/sdir.h"
#include "access/skey.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

typedef struct RowScan RowScan;

extern RowScan *RowScanBegin(Relation heap, Relation index, ScanKey keys, int nkeys,
							 ScanDirection direction, Snapshot snapshot);
extern void RowScanRestart(RowScan *scan, ScanKey keys, int nkeys);
extern HeapTuple RowScanNext(RowScan *scan);
extern void RowScanEnd(RowScan *scan);

#endif							/* CQRS_ES_ROW_SCAN_H */
