/*-------------------------------------------------------------------------
 * subject_key.c
 *	  The keys of those whom personal data are about.
 *
 * Each subject has a key of its own in each stream where there is something about it.  So the table
 * of keys says, too, in which streams that is, and there is no other that would have to.  A key
 * is known by a random id; there may be two of one subject and stream, for nothing is unique that two
 * who append would have to wait for, and keys that a backup brings back are in nobody's way.
 *
 * A key stands in the table wrapped by the master key (master_key.c), together with whose it is, so
 * that it is good for nobody else.  That of a subject which was forgotten is null; the row stays, and says
 * that what it was for is gone, and not lost.  What has neither a row nor a place in the list of
 * forgotten subjects is an error, for a rebuild that took it for gone would make it so.
 *
 * A session remembers keys until a key is removed, a subject forgotten, or anything declared: the
 * tables tell of that as registries do (registry.c).  A key that was made in this transaction may come to
 * nothing, so all are dropped when that, or a part of it, is undone, or is prepared.
 *
 * Who appends holds the slot of the subject, shared, from before he looks for its key to the end
 * of the transaction; who forgets it has that for himself (forget_subject.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/master_key.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/sha256.h"
#include "log/subject_key.h"

/* an append of very many subjects must not fill the lock table */
#define SLOTS			256

#define MAX_KNOWN		4096
#define WRAPPED_LENGTH	(AEAD_KEY_LENGTH + AEAD_OVERHEAD)

/* A key by its id. */
typedef struct KnownKey
{
	pg_uuid_t	id;
	bool		is_forgotten;
	uint8		key[AEAD_KEY_LENGTH];
} KnownKey;

/* The key of a subject in a stream, by a digest of both. */
typedef struct StreamKeyOfSubject
{
	Sha256Digest of;
	SubjectKey	key;
} StreamKeyOfSubject;

/* What a session remembers. */
static MemoryContext memory = NULL;
static HTAB *by_id;
static HTAB *by_subject;
static uint64 known_in = 0;		/* of the registries' generation */

/* has this transaction made a key? */
static bool has_made = false;

/* keys that are wrapped anew at once */
#define PORTION_KEYS	1000

PG_FUNCTION_INFO_V1(cqrs_es_rotate_master_key);

static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId id,
								  SubTransactionId parent, void *arg);
static void forget_all(void);
static uint64 prepare_memory(void);
static HTAB *make_table(const char *name, Size key_size, Size entry_size);
static Sha256Digest digest_of(const StreamKey *key, const text *subject);
static void add_text(Sha256Stream *stream, const text *value);
static void require_unforgotten(const StreamKey *key, const text *subject);
static bool read_key(const StreamKey *key, const text *subject, SubjectKey *found);
static void make_key(const StreamKey *key, const text *subject, SubjectKey *made);
static bytea *wrap(const SubjectKey *subject_key, const StreamKey *key, const text *subject, bytea **master_id);
static int	rotate_portion(pg_uuid_t *last, int64 *rotated);
static StringInfoData about_key(const pg_uuid_t *id, const StreamKey *key, const text *subject);
static void unwrap(const QueryRow *row, const StreamKey *key, const text *subject, SubjectKey *found);

void
SubjectKeyInit(void)
{
	RegistryRegister("personal_data_keys");
	RegistryRegister("forgotten_subjects");
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	if (has_made && (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE))
		forget_all();
	has_made = false;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (has_made && event == SUBXACT_EVENT_ABORT_SUB)
		forget_all();
}

/* No key stays in memory. */
static void
forget_all(void)
{
	HASH_SEQ_STATUS status;
	KnownKey   *known;
	StreamKeyOfSubject *of_subject;

	if (memory == NULL)
		return;
	hash_seq_init(&status, by_id);
	while ((known = hash_seq_search(&status)) != NULL)
		explicit_bzero(known->key, sizeof(known->key));
	hash_seq_init(&status, by_subject);
	while ((of_subject = hash_seq_search(&status)) != NULL)
		explicit_bzero(of_subject->key.key, sizeof(of_subject->key.key));
	MemoryContextDelete(memory);
	memory = NULL;
}

/*
 * What is remembered holds, as far as this session has been told; as of the generation that is
 * returned.
 */
static uint64
prepare_memory(void)
{
	uint64		generation;

	AcceptInvalidationMessages();
	generation = RegistryGeneration();
	if (memory && (known_in != generation || hash_get_num_entries(by_id) >= MAX_KNOWN ||
				   hash_get_num_entries(by_subject) >= MAX_KNOWN))
		forget_all();
	if (memory)
		return known_in;
	memory = AllocSetContextCreate(CacheMemoryContext, "cqrs_es subject keys", ALLOCSET_DEFAULT_SIZES);
	by_id = make_table("cqrs_es subject keys by id", sizeof(pg_uuid_t), sizeof(KnownKey));
	by_subject = make_table("cqrs_es subject keys by subject", sizeof(Sha256Digest), sizeof(StreamKeyOfSubject));
	known_in = generation;
	return known_in;
}

static HTAB *
make_table(const char *name, Size key_size, Size entry_size)
{
	HASHCTL		control = {.keysize = key_size,.entrysize = entry_size,.hcxt = memory};

	return hash_create(name, 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Shared with others who append, to the end of the transaction, or `to_forget` for itself alone.  What
 * was decided before by who had it is known afterwards.  40P01, 55P03.
 */
void
SubjectKeyLock(const text *tenant_id, const text *subject, bool to_forget)
{
	uint32		hash = hash_combine(hash_bytes((const unsigned char *) VARDATA_ANY(tenant_id),
											   VARSIZE_ANY_EXHDR(tenant_id)),
									hash_bytes((const unsigned char *) VARDATA_ANY(subject),
											   VARSIZE_ANY_EXHDR(subject)));
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelid("personal_data_keys"), hash % SLOTS, 0);
	(void) LockAcquire(&tag, to_forget ? ShareRowExclusiveLock : RowExclusiveLock, false, false);
}

/*
 * The key for what is about to be appended to a stream about a subject, whose slot is held; one is
 * made where there is none.  Raises QE702 when the subject is forgotten, QE701.
 */
void
SubjectKeyForEvents(const StreamKey *key, const text *subject, SubjectKey *found)
{
	Sha256Digest digest = digest_of(key, subject);
	StreamKeyOfSubject *known;
	uint64		generation = prepare_memory();

	known = hash_search(by_subject, &digest, HASH_FIND, NULL);
	if (known)
	{
		*found = known->key;
		return;
	}
	require_unforgotten(key, subject);
	if (!read_key(key, subject, found))
		make_key(key, subject, found);
	/* to look into a table is to be told of changes */
	if (prepare_memory() != generation)
		return;
	known = hash_search(by_subject, &digest, HASH_ENTER, NULL);
	known->key = *found;
}

static Sha256Digest
digest_of(const StreamKey *key, const text *subject)
{
	Sha256Stream *stream = Sha256Open();
	Sha256Digest digest;

	Sha256Start(stream);
	add_text(stream, key->tenant_id);
	add_text(stream, key->aggregate_type);
	add_text(stream, key->aggregate_id);
	add_text(stream, subject);
	Sha256Finish(stream, &digest);
	Sha256Close(stream);
	return digest;
}

static void
add_text(Sha256Stream *stream, const text *value)
{
	Sha256AddSized(stream, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static void
require_unforgotten(const StreamKey *key, const text *subject)
{
	static InternalQuery query = {
		.sql = "SELECT FROM cqrs_es.forgotten_subjects"
		" WHERE subject OPERATOR(pg_catalog.=) $1 AND tenant_id OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {PointerGetDatum(subject), PointerGetDatum(key->tenant_id)};
	bool		is_forgotten;

	SPI_connect();
	is_forgotten = RegistryRead(&query, values) > 0;
	SPI_finish();
	if (is_forgotten)
		ereport(ERROR,
				(errcode(ERRCODE_SUBJECT_FORGOTTEN),
				 errmsg("the subject of an event for stream \"%s\" has been forgotten", StreamKeyName(key)),
				 errdetail("Nothing personal can be appended about it any more."),
				 errhint("Who comes back needs a new identity.")));
}

/* The key that there is, of the newest state of the table, whatever the isolation level. */
static bool
read_key(const StreamKey *key, const text *subject, SubjectKey *found)
{
	static InternalQuery query = {
		.sql = "SELECT key_id, master_key_id, wrapped_key FROM cqrs_es.personal_data_keys"
		" WHERE subject OPERATOR(pg_catalog.=) $1 AND tenant_id OPERATOR(pg_catalog.=) $2"
		" AND aggregate_type OPERATOR(pg_catalog.=) $3 AND aggregate_id OPERATOR(pg_catalog.=) $4"
		" AND wrapped_key IS NOT NULL",
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[4] = {PointerGetDatum(subject), PointerGetDatum(key->tenant_id),
		PointerGetDatum(key->aggregate_type), PointerGetDatum(key->aggregate_id)};
	bool		is_there;

	SPI_connect();
	is_there = RegistryRead(&query, values) > 0;
	if (is_there)
	{
		QueryRow	row = InternalQueryRow(0);

		found->id = *DatumGetUUIDP(InternalQueryDatum(&row, "key_id", NULL));
		unwrap(&row, key, subject, found);
	}
	SPI_finish();
	return is_there;
}

static void
make_key(const StreamKey *key, const text *subject, SubjectKey *made)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.personal_data_keys (key_id, tenant_id, subject, aggregate_type,"
		" aggregate_id, master_key_id, wrapped_key) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		.nargs = 7,.argtypes = {UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, BYTEAOID}
	};
	bytea	   *master_id;
	bytea	   *wrapped;
	Datum		values[7];

	AeadRandom(&made->id, sizeof(made->id));
	AeadRandom(made->key, sizeof(made->key));
	wrapped = wrap(made, key, subject, &master_id);
	values[0] = UUIDPGetDatum(&made->id);
	values[1] = PointerGetDatum(key->tenant_id);
	values[2] = PointerGetDatum(subject);
	values[3] = PointerGetDatum(key->aggregate_type);
	values[4] = PointerGetDatum(key->aggregate_id);
	values[5] = PointerGetDatum(master_id);
	values[6] = PointerGetDatum(wrapped);
	has_made = true;
	(void) RegistryWrite(&query, values, NULL);
}

/* The key under the newest master key, whose id *master_id becomes; palloc'd.  QE701. */
static bytea *
wrap(const SubjectKey *subject_key, const StreamKey *key, const text *subject, bytea **master_id)
{
	const MasterKey *master = MasterKeyCurrent();
	StringInfoData about = about_key(&subject_key->id, key, subject);
	bytea	   *wrapped = palloc(VARHDRSZ + WRAPPED_LENGTH);

	*master_id = palloc(VARHDRSZ + MASTER_KEY_ID_LENGTH);
	SET_VARSIZE(*master_id, VARHDRSZ + MASTER_KEY_ID_LENGTH);
	memcpy(VARDATA(*master_id), master->id, MASTER_KEY_ID_LENGTH);
	SET_VARSIZE(wrapped, VARHDRSZ + WRAPPED_LENGTH);
	AeadSeal(master->key, &about, subject_key->key, AEAD_KEY_LENGTH, (uint8 *) VARDATA(wrapped));
	return wrapped;
}

/* What a wrapped key is about. */
static StringInfoData
about_key(const pg_uuid_t *id, const StreamKey *key, const text *subject)
{
	StringInfoData about;

	initStringInfo(&about);
	AeadAddTo(&about, "key", 3);
	AeadAddTo(&about, id, sizeof(*id));
	AeadAddTo(&about, VARDATA_ANY(key->tenant_id), VARSIZE_ANY_EXHDR(key->tenant_id));
	AeadAddTo(&about, VARDATA_ANY(key->aggregate_type), VARSIZE_ANY_EXHDR(key->aggregate_type));
	AeadAddTo(&about, VARDATA_ANY(key->aggregate_id), VARSIZE_ANY_EXHDR(key->aggregate_id));
	AeadAddTo(&about, VARDATA_ANY(subject), VARSIZE_ANY_EXHDR(subject));
	return about;
}

/* The key of a row, which says which master key wraps it.  QE701, QE703. */
static void
unwrap(const QueryRow *row, const StreamKey *key, const text *subject, SubjectKey *found)
{
	bytea	   *master_id = DatumGetByteaPP(InternalQueryDatum(row, "master_key_id", NULL));
	bytea	   *wrapped = DatumGetByteaPP(InternalQueryDatum(row, "wrapped_key", NULL));
	StringInfoData about = about_key(&found->id, key, subject);
	const MasterKey *master = NULL;

	if (VARSIZE_ANY_EXHDR(master_id) == MASTER_KEY_ID_LENGTH)
		master = MasterKeyFind((uint8 *) VARDATA_ANY(master_id));
	if (master == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_KEY_UNAVAILABLE),
				 errmsg("the master key of a subject's key is not there"),
				 errdetail("The file that cqrs_es.master_key_file names does not have it."),
				 errhint("Keep a key in the file, behind the newer ones, until rotate_master_key() has wrapped all anew.")));
	if (VARSIZE_ANY_EXHDR(wrapped) != WRAPPED_LENGTH ||
		!AeadOpen(master->key, &about, (uint8 *) VARDATA_ANY(wrapped), WRAPPED_LENGTH, found->key))
		ereport(ERROR,
				(errcode(ERRCODE_PERSONAL_DATA_UNFIT),
				 errmsg("a key of stream \"%s\" is not what was made for its subject", StreamKeyName(key)),
				 errdetail("Somebody has changed or moved it.")));
}

/*
 * The key of that id, wanted to open something: `key` has room for AEAD_KEY_LENGTH bytes.  Raises
 * QE701, QE703.
 */
SubjectKeyFate
SubjectKeyFind(const pg_uuid_t *id, uint8 *key)
{
	static InternalQuery query = {
		.sql = "SELECT k.tenant_id, k.subject, k.aggregate_type, k.aggregate_id, k.master_key_id, k.wrapped_key,"
		" k.wrapped_key IS NULL OR EXISTS (SELECT FROM cqrs_es.forgotten_subjects AS f"
		" WHERE f.subject OPERATOR(pg_catalog.=) k.subject AND f.tenant_id OPERATOR(pg_catalog.=) k.tenant_id) AS is_forgotten"
		" FROM cqrs_es.personal_data_keys AS k WHERE k.key_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {UUIDOID}
	};
	Datum		value = UUIDPGetDatum(id);
	SubjectKey	found = {.id = *id};
	bool		is_forgotten = false;
	bool		is_there;
	KnownKey   *known;
	uint64		generation = prepare_memory();

	known = hash_search(by_id, id, HASH_FIND, NULL);
	if (known)
	{
		memcpy(key, known->key, AEAD_KEY_LENGTH);
		return known->is_forgotten ? SUBJECT_KEY_FORGOTTEN : SUBJECT_KEY_THERE;
	}
	SPI_connect();
	is_there = RegistryRead(&query, &value) > 0;
	if (is_there)
	{
		QueryRow	row = InternalQueryRow(0);

		is_forgotten = DatumGetBool(InternalQueryDatum(&row, "is_forgotten", NULL));
		if (!is_forgotten)
		{
			StreamKey	stream = StreamKeyOfRow(&row);

			unwrap(&row, &stream, InternalQueryTextCopy(&row, "subject"), &found);
		}
	}
	SPI_finish();
	if (!is_there)
		return SUBJECT_KEY_MISSING;
	if (prepare_memory() == generation)
	{
		known = hash_search(by_id, id, HASH_ENTER, NULL);
		known->is_forgotten = is_forgotten;
		memcpy(known->key, found.key, AEAD_KEY_LENGTH);
	}
	memcpy(key, found.key, AEAD_KEY_LENGTH);
	explicit_bzero(found.key, sizeof(found.key));
	return is_forgotten ? SUBJECT_KEY_FORGOTTEN : SUBJECT_KEY_THERE;
}

/*
 * The streams in which there is something about a subject that has not been forgotten: SubjectStream,
 * palloc'd, in the order of their keys.  Of the newest state of the table.
 */
List *
SubjectKeyStreams(const text *tenant_id, const text *subject)
{
	static InternalQuery query = {
		.sql = "SELECT tenant_id, aggregate_type, aggregate_id, key_id FROM cqrs_es.personal_data_keys"
		" WHERE subject OPERATOR(pg_catalog.=) $1 AND tenant_id OPERATOR(pg_catalog.=) $2"
		" AND wrapped_key IS NOT NULL ORDER BY aggregate_type, aggregate_id",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {PointerGetDatum(subject), PointerGetDatum(tenant_id)};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi;
	List	   *streams = NIL;
	uint64		n;
	uint64		i;

	AcceptInvalidationMessages();
	SPI_connect();
	n = RegistryRead(&query, values);
	spi = MemoryContextSwitchTo(caller);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		StreamKey	key = StreamKeyOfRow(&row);
		SubjectStream *stream = streams == NIL ? NULL : llast(streams);

		if (stream == NULL || !StreamKeyEqual(&stream->key, &key))
		{
			stream = palloc0(sizeof(SubjectStream));
			stream->key = key;
			stream->keys = palloc(n * sizeof(pg_uuid_t));
			streams = lappend(streams, stream);
		}
		stream->keys[stream->nkeys++] = *DatumGetUUIDP(InternalQueryDatum(&row, "key_id", NULL));
	}
	MemoryContextSwitchTo(spi);
	SPI_finish();
	return streams;
}

/*
 * Put a subject on the list of those that are forgotten, and make its keys null.  Whoever appends about it is
 * kept out.  False when it was on the list.
 */
bool
SubjectKeyDrop(const text *tenant_id, const text *subject, const text *reason)
{
	static InternalQuery note = {
		.sql = "INSERT INTO cqrs_es.forgotten_subjects (tenant_id, subject, reason, forgotten_by)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "UPDATE cqrs_es.personal_data_keys SET wrapped_key = NULL"
		" WHERE subject OPERATOR(pg_catalog.=) $2 AND tenant_id OPERATOR(pg_catalog.=) $1 AND wrapped_key IS NOT NULL",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[4] = {PointerGetDatum(tenant_id), PointerGetDatum(subject), PointerGetDatum(reason),
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))};
	bool		is_new = RegistryWrite(&note, values, NULL) > 0;

	(void) RegistryWrite(&drop, values, NULL);
	return is_new;
}

/*-------------------------------------------------------------------------
 * another master key
 *-------------------------------------------------------------------------
 */

/* SQL: rotate_master_key().  Returns how many keys were wrapped anew. */
Datum
cqrs_es_rotate_master_key(PG_FUNCTION_ARGS)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es rotation", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(work);
	pg_uuid_t	last = {{0}};
	int64		rotated = 0;

	ReadOnlyPrevent(fcinfo);
	(void) MasterKeyCurrent();
	while (rotate_portion(&last, &rotated) == PORTION_KEYS)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(work);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
	PG_RETURN_INT64(rotated);
}

/*
 * Those of the next keys that an older master key wraps, behind the `last` one looked at; how many
 * that were.  A subject that is forgotten meanwhile stays so.
 */
static int
rotate_portion(pg_uuid_t *last, int64 *rotated)
{
	static InternalQuery query = {
		.sql = "SELECT key_id, tenant_id, subject, aggregate_type, aggregate_id, master_key_id, wrapped_key"
		" FROM cqrs_es.personal_data_keys WHERE key_id OPERATOR(pg_catalog.>) $1"
		" AND master_key_id OPERATOR(pg_catalog.<>) $2 AND wrapped_key IS NOT NULL ORDER BY key_id LIMIT 1000",
		.nargs = 2,.argtypes = {UUIDOID, BYTEAOID}
	};
	static InternalQuery update = {
		.sql = "UPDATE cqrs_es.personal_data_keys AS k SET master_key_id = $1, wrapped_key = n.wrapped_key"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS n (key_id, wrapped_key)"
		" WHERE k.key_id OPERATOR(pg_catalog.=) n.key_id AND k.wrapped_key IS NOT NULL",
		.nargs = 3,.argtypes = {BYTEAOID, UUIDARRAYOID, BYTEAARRAYOID}
	};
	bytea	   *current = palloc(VARHDRSZ + MASTER_KEY_ID_LENGTH);
	bytea	   *master_id;
	Datum		ids[PORTION_KEYS];
	Datum		wrapped[PORTION_KEYS];
	Datum		values[3] = {UUIDPGetDatum(last), PointerGetDatum(current)};
	int			n;
	int			i;

	SET_VARSIZE(current, VARHDRSZ + MASTER_KEY_ID_LENGTH);
	memcpy(VARDATA(current), MasterKeyCurrent()->id, MASTER_KEY_ID_LENGTH);
	SPI_connect();
	n = (int) RegistryRead(&query, values);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		StreamKey	key = StreamKeyOfRow(&row);
		text	   *subject = InternalQueryTextCopy(&row, "subject");
		SubjectKey	found = {.id = *DatumGetUUIDP(InternalQueryDatum(&row, "key_id", NULL))};

		unwrap(&row, &key, subject, &found);
		wrapped[i] = PointerGetDatum(wrap(&found, &key, subject, &master_id));
		explicit_bzero(found.key, sizeof(found.key));
		ids[i] = InternalQueryDatum(&row, "key_id", NULL);
		*last = found.id;
	}
	if (n > 0)
	{
		values[0] = PointerGetDatum(current);
		values[1] = PointerGetDatum(construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
		values[2] = PointerGetDatum(construct_array(wrapped, n, BYTEAOID, -1, false, TYPALIGN_INT));
		*rotated += (int64) RegistryWriteRows(&update, values, NULL);
	}
	SPI_finish();
	return n;
}
