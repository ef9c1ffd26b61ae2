/*-------------------------------------------------------------------------
 * state_rules.h
 *	  How a state comes of events, and who has such rules.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STATE_RULES_H
#define CQRS_ES_STATE_RULES_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "base/extension.h"
#include "base/internal_query.h"

struct Reducer;

/* All that decides what a fold results in.  Lives in the registry cache, as its owner does. */
typedef struct StateRules
{
	Jsonb	   *initial_state;
	bytea	   *fingerprint;	/* of all of it */
	char	   *row_versions;	/* of the rows that all of it was read from */

	/* reducer.c's */
	int			nreducers;
	struct Reducer *reducers;
} StateRules;

/* What an owner's row says of its rules. */
typedef struct StateRulesRow
{
	Jsonb	   *initial_state;
	TimestampTz created_at;
	const char *row_version;
	const char *source;			/* what else decides of its states, or NULL */
} StateRulesRow;

/* What may have reducers and commands of its own: aggregate types, and the like above. */
typedef struct StateOwner
{
	const char *noun;			/* what one is called */
	bool		of_streams;		/* each of its states is that of a stream */

	/*
	 * If it is declared, lock its row to the end of the transaction, with the newest
	 * snapshot: FOR NO KEY UPDATE to change what belongs to it, else FOR KEY SHARE.
	 */
	bool		(*lock) (const text *name, bool change);
} StateOwner;

/* What belongs to owners and is declared elsewhere.  Each member may be NULL. */
typedef struct StateRulesPart
{
	/*
	 * Read what decides of the owner's states.  What the rules point to is allocated in
	 * `memory`, all texts are added to `source` (StateRulesAddSource), and of which rows
	 * it is to row_versions.  Between SPI_connect and SPI_finish.
	 */
	void		(*load) (StateRules *rules, const text *owner, MemoryContext memory,
						 StringInfo source, StringInfo row_versions);

	/* The owner has been dropped: this goes with it. */
	void		(*drop) (const text *owner);
} StateRulesPart;

extern void StateRulesRegister(const StateRulesPart *part);
extern void StateRulesRegisterOwner(const StateOwner *owner);
extern void StateRulesAddSource(StringInfo source, const char *value);
extern void StateRulesLoad(StateRules *rules, const text *owner, MemoryContext memory,
						   const StateRulesRow *row);
extern void StateRulesDrop(const text *owner);

extern void StateRulesLockName(const text *name);
extern void StateRulesRequireFreeName(const text *name, const StateOwner *for_owner);
extern const StateOwner *StateRulesLockOwner(const text *name);
extern const StateOwner *StateRulesLockIfOwned(const text *name);
extern const StateOwner *StateRulesLockForDrop(const text *name, bool if_exists);
extern bool StateRulesChange(const StateOwner *owner, InternalQuery *compare,
							 InternalQuery *alter, Datum *values, const char *nulls,
							 bool tell);
extern void StateRulesReportMissing(const text *name, bool if_exists);
pg_noreturn extern void StateRulesReportUndeclared(const text *name);

#endif							/* CQRS_ES_STATE_RULES_H */
