/*-------------------------------------------------------------------------
 * module.c
 *	  Module entry: the table of contents.
 *
 * cqrs_es turns PostgreSQL into an event store.  The house has rooms, one
 * above the other; a file uses the headers of its own room and of those below
 * it, and names no table of a room above it, which a test checks.  What must happen
 * above at an event registers itself below (DispatchRegister).
 *
 *	scale		one log over several servers
 *	seal		proof that no event was changed
 *	async		projections that follow the log by themselves, and who runs them
 *	subscription	who takes events out of the log, in batches with a lease
 *	projection	read models that handlers keep in the appending transaction
 *	boundary	decisions on the events of any streams
 *	command		deciders: state + command -> events
 *	aggregate	events -> state: reducers, replay, snapshots
 *	tag			what events concern beside their stream: tags, and who waits for whom over them
 *	log			the events: append, positions, reading, what happens at an append
 *	base		who calls, declarations (registries), with whose rights code runs
 *
 * Following an event:
 *
 *	append.c (version check, idempotency) -> event_writer.c (straight path or
 *	SQL) -> events.c (the table) -> dispatch.c (the AFTER trigger) ->
 *	handler.c, snapshot.c (one due?) -> commit -> horizon.c (settled?) ->
 *	read.c hands it out.
 *
 * A plain INSERT or COPY takes the same way through admission.c, the one
 * BEFORE ROW trigger.  The SQL of a concept stands in the same room of sql/; the
 * parts are loaded in the order of their numbers.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "base/compiled_function.h"
#include "base/deferred_constraint.h"
#include "base/definer.h"
#include "base/early_setting.h"
#include "base/extension.h"
#include "base/lent_session.h"
#include "base/master_key.h"
#include "base/registry.h"
#include "base/relation_change.h"
#include "base/role_switch.h"
#include "base/tenancy.h"
#include "base/wakeup.h"
#include "log/context.h"
#include "log/dispatch.h"
#include "log/events.h"
#include "log/horizon.h"
#include "log/id_search.h"
#include "log/log_history.h"
#include "log/log_range.h"
#include "log/personal_data.h"
#include "log/position.h"
#include "log/stream_index.h"
#include "log/subject_key.h"
#include "log/upcast.h"
#include "tag/event_tags.h"
#include "tag/redacted_tags.h"
#include "tag/tag_definition.h"
#include "tag/tag_filter.h"
#include "aggregate/aggregate.h"
#include "aggregate/reducer.h"
#include "aggregate/snapshot.h"
#include "aggregate/snapshot_store.h"
#include "aggregate/state_cache.h"
#include "aggregate/strict.h"
#include "command/command.h"
#include "command/command_declaration.h"
#include "boundary/boundary.h"
#include "boundary/boundary_snapshot.h"
#include "projection/handler.h"
#include "projection/missed_redaction.h"
#include "projection/projection.h"
#include "projection/read_model.h"
#include "subscription/delivery_wait.h"
#include "subscription/deleted_event.h"
#include "subscription/redacted_error.h"
#include "subscription/restored_event.h"
#include "subscription/retagged_event.h"
#include "subscription/subscription.h"
#include "async/async_projection.h"
#include "async/worker.h"
#include "scale/kept_shards.h"
#include "scale/log_link.h"
#include "scale/publication.h"
#include "seal/event_change.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* all settings that the Inits below define */
static const EarlySetting early_settings[] = {
	{"cqrs_es.command_retries", false, NULL},
	{"cqrs_es.context", false, ContextIsValid},
	{"cqrs_es.force_generic_path", false, NULL},
	{"cqrs_es.idempotency_window", false, NULL},
	{"cqrs_es.master_key_file", true, NULL},
	{"cqrs_es.max_handler_depth", false, NULL},
	{"cqrs_es.node_id", true, PositionNodeIsValid},
	{"cqrs_es.projection_worker", true, EarlySettingIsBool},
	{"cqrs_es.projection_worker_idle_time", true, NULL},
	{"cqrs_es.require_tenant", true, EarlySettingIsBool},
	{"cqrs_es.retry_window", false, NULL},
	{"cqrs_es.settle_timeout", false, NULL},
	{"cqrs_es.state_cache_size", false, NULL},
	{"cqrs_es.tenant_id", true, TenancyIsValid},
};

/*
 * One Init per concept that has settings, callbacks, or something to say to those
 * below it.
 */
void
_PG_init(void)
{
	EarlySettingCheck(early_settings, lengthof(early_settings));

	TenancyInit();
	RelationChangeInit();
	ExtensionInit();
	RegistryInit();
	RoleSwitchInit();
	LentSessionInit();
	CompiledFunctionInit();
	DefinerInit();
	DeferredConstraintInit();
	WakeupInit();
	MasterKeyInit();

	ContextInit();
	PositionInit();
	StreamIndexInit();
	EventsInit();
	LogRangeInit();
	DispatchInit();
	IdSearchInit();
	LogHistoryInit();
	HorizonInit();
	UpcastInit();
	SubjectKeyInit();
	PersonalDataInit();

	TagDefinitionInit();
	EventTagsInit();
	TagFilterInit();
	RedactedTagsInit();

	AggregateInit();
	ReducerInit();
	SnapshotStoreInit();
	StateCacheInit();
	StrictInit();

	CommandDeclarationInit();
	CommandInit();

	BoundaryInit();
	BoundarySnapshotInit();

	ReadModelInit();
	ProjectionInit();
	HandlerInit();
	MissedRedactionInit();

	/* observers are called in this order, and handlers come before snapshots */
	SnapshotInit();

	SubscriptionInit();
	DeliveryWaitInit();
	RestoredEventInit();
	RetaggedEventInit();
	RedactedErrorInit();
	DeletedEventInit();

	AsyncProjectionInit();
	WorkerInit();

	EventChangeInit();

	KeptShardsInit();
	LogLinkInit();
	PublicationInit();
	MarkGUCPrefixReserved(CQRS_ES_SCHEMA);
}
