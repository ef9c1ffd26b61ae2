/*-------------------------------------------------------------------------
 * command_id.c
 *	  The id of a command, by which it is recognized when it is sent again.
 *
 * The events carry the command's id ("command_id", "causation_id") and a
 * correlation id, that of the context or else the command's.  A command that is
 * sent again with its id is recognized by the events it left in the stream, within
 * the window of id_search.c; it returns its first result and does nothing.
 * That it is the same command shows a digest of type and payload, which they
 * carry as well.  A command that was rejected, or that nothing followed from, left
 * no trace and is decided anew.
 *
 * It may be sent again while the first is still running.  Then it must not be
 * decided beside the first, or it would be refused for what that one holds:
 * rows, advisory locks, seats that are taken.  So, in this order,
 *
 *	- who decides a command with an id holds a lock on stream and id until its
 *	  events are in the log (on the generic way, which does not see rows in
 *	  progress, until the transaction ends), taken before it queues up
 *	  (command_queue.c), so that nobody in the queue waits for this lock;
 *	- who has that lock waits until nobody else's rows are at the stream's end;
 *	- and then looks for the id.
 *
 * Nobody waits for this lock who may hold what its owner waits for, as with the
 * slots: a transaction that has written something, or locked a row, takes it if
 * it is free, and else decides without.  When the command is refused then, or
 * nothing follows from it, that may be due to the owner, which only its end tells:
 * so it waits for the lock after all, and decides again.  (Should the owner wait
 * for it meanwhile, the server's deadlock detector ends one of them.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/sha256.h"
#include "log/context.h"
#include "log/event_id.h"
#include "log/event_scan.h"
#include "log/event_writer.h"
#include "log/id_search.h"
#include "command/command_id.h"

/* advisory locks of users have 1 or 2 in the fourth field of their tag */
#define COMMAND_ID_LOCK_CLASS	0xCF

static void put_string(JsonbParseState **state, const char *key, const char *value);
static void put_digest(JsonbParseState **state, const CommandIdentity *identity);
static void make_digest(const text *type, Jsonb *payload, char *digest);
static void append_canonical(StringInfo text, JsonbContainer *json);
static bool fits(const CommandIdentity *identity, Jsonb *metadata);
static bool is_string(JsonbContainer *object, const char *key, const char *value);
static void require_same_command(const CommandIdentity *identity, int64 sequence,
								 int64 *global_position, Snapshot snapshot);
static uint64 hash_text(const char *id, int len);
static bool hash_command_id(const Event *event, uint64 *hash);
static bool has_command_id(const Event *event, const IdSearch *search);
pg_noreturn static void report_other_command(const CommandIdentity *identity, int64 sequence);

static const IdKind command_ids = {.hash = hash_command_id,.is_wanted = has_command_id};

/*
 * The identity of a command for a stream, by the id that the caller gives, or a new
 * one when that is null.  It points to the key of the stream.  Without a stream (NULL)
 * it says what its events carry, and who looks for them and waits is the caller.
 */
void
CommandIdSet(CommandIdentity *identity, NullableDatum id, const StreamKey *key,
			 const text *type, Jsonb *payload)
{
	identity->key = key;
	identity->is_given = !id.isnull;
	identity->is_held = false;
	identity->appends_show = false;
	if (identity->is_given)
	{
		identity->id = *DatumGetUUIDP(id.value);
		make_digest(type, payload, identity->digest);
	}
	else
		EventIdGenerate(&identity->id);
}

/*-------------------------------------------------------------------------
 * what its events carry
 *-------------------------------------------------------------------------
 */

/*
 * The metadata that a command was sent with (NULL: none), with its ids over it.  A
 * correlation id that the caller or the context gives stays.  Raises what
 * ContextMetadata does.
 */
Jsonb *
CommandIdMetadata(const CommandIdentity *identity, Jsonb *metadata)
{
	JsonbParseState *state = NULL;
	char	   *id = EventIdText(&identity->id);
	Jsonb	   *ids;
	Jsonb	   *outer;
	JsonbValue	found;

	if (metadata == NULL)
		metadata = ContextEmptyObject();
	outer = ContextMetadata(metadata);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put_string(&state, "command_id", id);
	put_string(&state, "causation_id", id);
	put_digest(&state, identity);
	if (getKeyJsonValueFromContainer(&outer->root, "correlation_id", strlen("correlation_id"),
									 &found) == NULL)
		put_string(&state, "correlation_id", id);
	ids = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(metadata),
											  JsonbPGetDatum(ids)));
}

/* The id by which a repetition is recognized: no decider can give another. */
Jsonb *
CommandIdStamp(const CommandIdentity *identity)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put_string(&state, "command_id", EventIdText(&identity->id));
	put_digest(&state, identity);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
put_string(JsonbParseState **state, const char *key, const char *value)
{
	JsonbValue	string = {.type = jbvString};

	string.val.string.val = unconstify(char *, key);
	string.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &string);
	string.val.string.val = unconstify(char *, value);
	string.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_VALUE, &string);
}

/* A command without an id of its own is never sent again, and needs none. */
static void
put_digest(JsonbParseState **state, const CommandIdentity *identity)
{
	if (identity->is_given)
		put_string(state, "command_digest", identity->digest);
}

/*
 * Of type and payload, the beginning of their SHA-256.  It is kept with the events, so
 * on every server and for good it must be the same for payloads that are equal.
 */
static void
make_digest(const text *type, Jsonb *payload, char *digest)
{
	uint8		bytes[PG_SHA256_DIGEST_LENGTH];
	StringInfoData text;

	initStringInfo(&text);
	appendBinaryStringInfo(&text, VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
	appendStringInfoChar(&text, '\0');
	append_canonical(&text, &payload->root);
	Sha256(text.data, text.len, bytes);
	pfree(text.data);
	(void) hex_encode((const char *) bytes, COMMAND_ID_DIGEST_CHARS / 2, digest);
	digest[COMMAND_ID_DIGEST_CHARS] = '\0';
}

/* A text that two values share when they are equal as jsonb: 1.0 is 1. */
static void
append_canonical(StringInfo text, JsonbContainer *json)
{
	JsonbIterator *iterator = JsonbIteratorInit(json);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		char	   *number;

		appendStringInfo(text, "%d", (int) token);
		if (token == WJB_BEGIN_ARRAY && value.val.array.rawScalar)
			appendStringInfoChar(text, 's');
		if (token != WJB_KEY && token != WJB_VALUE && token != WJB_ELEM)
			continue;
		switch (value.type)
		{
			case jbvNull:
				appendStringInfoChar(text, 'n');
				break;
			case jbvBool:
				appendStringInfoChar(text, value.val.boolean ? 't' : 'f');
				break;
			case jbvNumeric:
				number = DatumGetCString(DirectFunctionCall1(numeric_out,
															 DirectFunctionCall1(numeric_trim_scale,
																				 NumericGetDatum(value.val.numeric))));
				appendStringInfo(text, "%s,", number);
				break;
			case jbvString:
				appendStringInfo(text, "\"%d:", value.val.string.len);
				appendBinaryStringInfo(text, value.val.string.val, value.val.string.len);
				break;
			default:			/* not reached */
				elog(ERROR, "unexpected jsonb value of type %d", (int) value.type);
		}
	}
}

/* Is the object's member just this string? */
static bool
is_string(JsonbContainer *object, const char *key, const char *value)
{
	JsonbValue	member;

	return getKeyJsonValueFromContainer(object, key, strlen(key), &member) != NULL &&
		member.type == jbvString && member.val.string.len == (int) strlen(value) &&
		memcmp(member.val.string.val, value, member.val.string.len) == 0;
}

/*-------------------------------------------------------------------------
 * recognizing it
 *-------------------------------------------------------------------------
 */

/*
 * The version after this command's events, which the stream got already, and the
 * position of the last in *global_position; 0 when it did not get them.  Looks where it
 * has not been searched yet, as far as id_search.c does.  After that *searched is its
 * end, or `loaded` when that is behind it.
 * A command without an id of its own is no repetition.  QE002 when they are another
 * command's that had the same id.
 */
int64
CommandIdFind(const CommandIdentity *identity, int64 loaded, int64 *searched,
			  int64 *global_position)
{
	LogSnapshot snapshot;
	char	   *id;
	uint64		hash;
	IdSearch	search = {.kind = &command_ids,.key = identity->key,.nids = 1,.hashes = &hash};
	int64		version;

	if (!identity->is_given)
		return 0;
	id = EventIdText(&identity->id);
	hash = hash_text(id, strlen(id));
	search.of = id;
	snapshot = EventsSnapshotTake(false);
	version = IdSearchLast(&search, searched, 0, snapshot.snapshot);
	if (version > 0)
		require_same_command(identity, version, global_position, snapshot.snapshot);
	EventsSnapshotRelease(snapshot);
	*searched = Max(*searched, loaded);
	return version;
}

/* The event with this sequence, which has the command's id: its position.  QE002 as above. */
static void
require_same_command(const CommandIdentity *identity, int64 sequence, int64 *global_position,
					 Snapshot snapshot)
{
	EventScan  *scan = EventScanStream(identity->key, sequence, ForwardScanDirection, snapshot);
	Event		event;

	if (!EventScanNext(scan, &event))	/* not reached: the same snapshot has seen it */
		elog(ERROR, "event %lld of a command is gone", (long long) sequence);
	*global_position = EventGlobalPosition(&event);
	if (!fits(identity, DatumGetJsonbP(event.values[EVENT_METADATA])))
		report_other_command(identity, sequence);
	EventScanEnd(scan);
}

static uint64
hash_text(const char *id, int len)
{
	return hash_bytes_extended((const unsigned char *) id, len, 0);
}

static bool
hash_command_id(const Event *event, uint64 *hash)
{
	Jsonb	   *metadata = DatumGetJsonbP(event->values[EVENT_METADATA]);
	JsonbValue	member;
	bool		found = getKeyJsonValueFromContainer(&metadata->root, "command_id",
													 strlen("command_id"), &member) != NULL &&
		member.type == jbvString;

	if (found)
		*hash = hash_text(member.val.string.val, member.val.string.len);
	if ((Pointer) metadata != DatumGetPointer(event->values[EVENT_METADATA]))
		pfree(metadata);
	return found;
}

static bool
has_command_id(const Event *event, const IdSearch *search)
{
	Jsonb	   *metadata = DatumGetJsonbP(event->values[EVENT_METADATA]);
	bool		found = is_string(&metadata->root, "command_id", search->of);

	if ((Pointer) metadata != DatumGetPointer(event->values[EVENT_METADATA]))
		pfree(metadata);
	return found;
}

/*
 * Did an event with this metadata follow from this very command, whose id was given?  Nobody but
 * who executes commands writes their digests.
 */
bool
CommandIdIsOf(const CommandIdentity *identity, Jsonb *metadata)
{
	return is_string(&metadata->root, "command_id", EventIdText(&identity->id)) &&
		is_string(&metadata->root, "command_digest", identity->digest);
}

/*
 * An event with this metadata followed from a command with the same id: was it the same
 * command?  One that was written without a digest is taken at its word.
 */
static bool
fits(const CommandIdentity *identity, Jsonb *metadata)
{
	return getKeyJsonValueFromContainer(&metadata->root, "command_digest",
										strlen("command_digest"), NULL) == NULL ||
		is_string(&metadata->root, "command_digest", identity->digest);
}

static void
report_other_command(const CommandIdentity *identity, int64 sequence)
{
	ereport(ERROR,
			(errcode(ERRCODE_EVENT_ID_CONFLICT),
			 errmsg("command id %s is already used in stream \"%s\"",
					EventIdText(&identity->id), StreamKeyName(identity->key)),
			 errdetail("Sequence %lld of the stream followed from a command with this id, and with another type or payload.",
					   (long long) sequence),
			 errhint("A retry must repeat the same command; a new command needs a new id.")));
}

/*-------------------------------------------------------------------------
 * who waits for whom
 *-------------------------------------------------------------------------
 */

/*
 * Be the only one to decide this command: lock stream and id, to the end of the
 * transaction or until CommandIdRelease.  Unless it may wait, it does without the
 * lock where that is not free.  Only of a command whose id is given.  Raises 40P01.
 */
void
CommandIdHold(CommandIdentity *identity, bool wait)
{
	uint64		hash = 0;
	const text *parts[] = {identity->key->aggregate_type, identity->key->aggregate_id,
		identity->key->tenant_id};
	size_t		i;

	for (i = 0; i < lengthof(parts); i++)
		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(parts[i]),
								   VARSIZE_ANY_EXHDR(parts[i]), hash);
	hash = hash_bytes_extended(identity->id.data, UUID_LEN, hash);
	SET_LOCKTAG_ADVISORY(identity->lock, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 COMMAND_ID_LOCK_CLASS);
	identity->is_held = LockAcquire(&identity->lock, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* Can nobody else be deciding the same command? */
bool
CommandIdIsAlone(const CommandIdentity *identity)
{
	return !identity->is_given || identity->is_held;
}

/* The same command may go on, if it can see what was appended, or nothing was. */
void
CommandIdRelease(CommandIdentity *identity, bool appended)
{
	if (identity->is_held && (!appended || identity->appends_show))
		(void) LockRelease(&identity->lock, ExclusiveLock, false);
	identity->is_held = false;
}

/*
 * Wait for who is appending to the stream, where that can be seen; see above for when.
 * Raises 40P01.
 */
void
CommandIdAwaitStream(CommandIdentity *identity)
{
	EventWriter writer;

	EventWriterOpen(&writer);
	identity->appends_show = writer.reads_straight;
	(void) EventWriterTip(&writer, identity->key, NULL);
	EventWriterClose(&writer);
}
