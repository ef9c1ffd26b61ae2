/*-------------------------------------------------------------------------
 * dispatch.c
 *	  What happens in the appending transaction after an event is in the log:
 *	  projections, snapshots, in the order in which they registered.
 *
 * The straight path calls DispatchEvent itself, every other path arrives
 * through the one AFTER ROW trigger.  The list, not the file that owns the
 * trigger, knows the concepts above it.
 *
 * A row with a position that this transaction did not draw is a restored one:
 * what followed from it then is restored as well, so nobody is told.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "dispatch.h"
#include "position.h"

#define MAX_OBSERVERS 8

static EventObserver observers[MAX_OBSERVERS];
static int	nobservers = 0;

PG_FUNCTION_INFO_V1(cqrs_es_dispatch_event);

/* Add an observer; called by Inits only, the order of calls is the order of work. */
void
DispatchRegister(EventObserver observer)
{
	if (nobservers >= MAX_OBSERVERS)
		elog(ERROR, "too many event observers");
	observers[nobservers++] = observer;
}

/* Tell all observers of a new event. */
void
DispatchEvent(const Event *event)
{
	int			i;

	for (i = 0; i < nobservers; i++)
		observers[i] (event);
}

/* SQL: the AFTER INSERT ROW trigger of the log */
Datum
cqrs_es_dispatch_event(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EventColumns columns;
	Event		event = {.row = NULL,.append_version = 0};
	int			column;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired AFTER INSERT FOR EACH ROW", "dispatch_event()")));

	EventsColumnsOf(trigdata->tg_relation, &columns);
	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		bool		isnull;

		event.values[column] = slot_getattr(trigdata->tg_trigslot, columns.attno[column], &isnull);
	}
	if (PositionIsOwn(EventGlobalPosition(&event)))
	{
		/* let observers see the rows of the INSERT that fired us */
		CommandCounterIncrement();
		DispatchEvent(&event);
	}
	return PointerGetDatum(NULL);
}
