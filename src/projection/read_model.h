/*-------------------------------------------------------------------------
 * read_model.h
 *	  Tables that projections keep.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_READ_MODEL_H
#define CQRS_ES_READ_MODEL_H

#include "utils/array.h"

#include "base/definer.h"

extern void ReadModelInit(void);
extern Oid *ReadModelOids(ArrayType *array, int *n);
extern ArrayType *ReadModelsCheck(ArrayType *read_models, Oid owner);
extern void ReadModelsLock(const Oid *locks, int nlocks, Oid owner);
extern void ReadModelsRefuseShared(const char *projection);
extern void ReadModelsWarnShared(const char *projection);
extern int64 ReadModelsRowsChanged(const Oid *read_models, int n);
extern void ReadModelsEmpty(const Oid *read_models, int n, const Definer *owner,
							const char *projection);

#endif							/* CQRS_ES_READ_MODEL_H */
