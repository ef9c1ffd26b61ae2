/*-------------------------------------------------------------------------
 * event_digest.c
 *	  The digest of an event, and that of its content.
 *
 * The digest of an event is that of its columns, in the order of the type cqrs_es.event;
 * for payload and metadata stands a digest of their own, so that it can be made of an
 * event whose content is gone, if that is known.  Numbers are little-endian and
 * of eight bytes, texts have their length before them, so no two events are the same bytes.
 * Columns that somebody added to the log are no part of the event.
 *
 * Documents are taken as they are stored: keys sorted, each of them once, numbers as decimals
 * with the digits that were written.  What is stored follows from the document alone, so a
 * dump that is restored gives the same bytes; they have not changed since PostgreSQL 9.4, and
 * pg_upgrade relies on that.  Where a machine stores numbers the other way around, they are
 * turned.  (The developers' setting for the generic way does it on any machine, so that
 * both are tested.)  Texts are bytes of the database's encoding.
 *
 * Columns of the log are never null, unless somebody forges the catalog; a null then has
 * a length of its own.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "seal/event_digest.h"

/* in the place of a length */
#define NO_VALUE	(-1)

/* what stands in a record besides texts: a word, numbers, lengths, id and digest */
#define FIXED_SIZE	256

struct EventDigester
{
	Sha256Stream *stream;
	StringInfoData record;		/* the event as its digest is made of it */
	MemoryContext work;			/* of one event */
};

static void add_document(Sha256Stream *stream, Datum value);
static struct varlena *stored_bytes(Datum value);
static void put_container(StringInfo image, const JsonbContainer *container);
static void put_numeric(StringInfo image, const char *numeric);
static void put_text(StringInfo record, Datum value);
static void put_bytes(StringInfo record, const void *bytes, Size size);
static void put_number(StringInfo record, int64 value);
static void put_uint32(StringInfo image, uint32 value);
static void put_uint16(StringInfo image, uint16 value);

/* palloc'd; to be ended by EventDigesterEnd, but for errors. */
EventDigester *
EventDigesterBegin(void)
{
	EventDigester *digester = palloc0(sizeof(EventDigester));

	digester->stream = Sha256Open();
	initStringInfo(&digester->record);
	digester->work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es event digest",
										   ALLOCSET_DEFAULT_SIZES);
	return digester;
}

/* The digests of an event. */
void
EventDigestMake(EventDigester *digester, const Event *event, EventDigests *digests)
{
	MemoryContext caller = MemoryContextSwitchTo(digester->work);

	Sha256Start(digester->stream);
	add_document(digester->stream, event->values[EVENT_PAYLOAD]);
	add_document(digester->stream, event->values[EVENT_METADATA]);
	Sha256Finish(digester->stream, &digests->content);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(digester->work);
	EventDigestCombine(digester, event, digests);
}

/* That of an event with a content of which nothing is known but its digest. */
void
EventDigestCombine(EventDigester *digester, const Event *event, EventDigests *digests)
{
	StringInfo	record = &digester->record;
	MemoryContext caller = MemoryContextSwitchTo(digester->work);
	const void *event_id = DatumGetPointer(event->values[EVENT_EVENT_ID]);
	int			column;

	resetStringInfo(record);
	enlargeStringInfo(record, FIXED_SIZE);
	put_bytes(record, "event", 5);
	put_number(record, EventGlobalPosition(event));
	put_number(record, EventSequence(event));
	put_number(record, DatumGetTimestampTz(event->values[EVENT_CREATED_AT]));
	put_number(record, event_id ? UUID_LEN : NO_VALUE);
	put_bytes(record, event_id, event_id ? UUID_LEN : 0);
	for (column = EVENT_TENANT_ID; column < EVENT_PAYLOAD; column++)
		put_text(record, event->values[column]);
	put_bytes(record, &digests->content, sizeof(Sha256Digest));
	MemoryContextSwitchTo(caller);
	MemoryContextReset(digester->work);

	Sha256Start(digester->stream);
	Sha256Add(digester->stream, record->data, record->len);
	Sha256Finish(digester->stream, &digests->event);
}

void
EventDigesterEnd(EventDigester *digester)
{
	Sha256Close(digester->stream);
	pfree(digester->record.data);
	MemoryContextDelete(digester->work);
	pfree(digester);
}

/* Allocates in the current memory context. */
static void
add_document(Sha256Stream *stream, Datum value)
{
	struct varlena *stored = DatumGetPointer(value) ? stored_bytes(value) : NULL;

	if (stored)
		Sha256AddSized(stream, VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored));
	else
		Sha256AddNumber(stream, NO_VALUE);
}

/* The document's bytes, numbers in them little-endian. */
static struct varlena *
stored_bytes(Datum value)
{
	StringInfoData image;
	Jsonb	   *document;

#ifndef WORDS_BIGENDIAN
	if (!EventsForceGenericPath())
		return PG_DETOAST_DATUM_PACKED(value);
#endif
	document = DatumGetJsonbP(value);
	initStringInfo(&image);
	appendStringInfoSpaces(&image, VARHDRSZ);
	put_container(&image, &document->root);
	SET_VARSIZE(image.data, image.len);
	return (struct varlena *) image.data;
}

/* An array or object: a header, an entry for each element (keys first, then values), and their data. */
static void
put_container(StringInfo image, const JsonbContainer *container)
{
	uint32		count = JsonContainerSize(container) * (JsonContainerIsObject(container) ? 2 : 1);
	const char *data = (const char *) &container->children[count];
	uint32		i;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	put_uint32(image, container->header);
	for (i = 0; i < count; i++)
		put_uint32(image, container->children[i]);
	for (i = 0; i < count; i++)
	{
		JEntry		entry = container->children[i];
		uint32		begin = getJsonbOffset(container, i);
		uint32		end = begin + getJsonbLength(container, i);
		uint32		aligned = INTALIGN(begin);

		if (JBE_ISNUMERIC(entry) || JBE_ISCONTAINER(entry))
		{
			appendBinaryStringInfo(image, data + begin, aligned - begin);
			if (JBE_ISNUMERIC(entry))
				put_numeric(image, data + aligned);
			else
				put_container(image, (const JsonbContainer *) (data + aligned));
		}
		else
			appendBinaryStringInfo(image, data + begin, end - begin);
	}
}

/* A numeric: its length, and numbers of 16 bits. */
static void
put_numeric(StringInfo image, const char *numeric)
{
	Size		size = VARSIZE(numeric);
	Size		i;

	put_uint32(image, (uint32) size << 2);
	for (i = VARHDRSZ; i + sizeof(uint16) <= size; i += sizeof(uint16))
		put_uint16(image, *(const uint16 *) (numeric + i));
}

static void
put_text(StringInfo record, Datum value)
{
	const text *stored;

	if (DatumGetPointer(value) == NULL)
	{
		put_number(record, NO_VALUE);
		return;
	}
	stored = DatumGetTextPP(value);
	enlargeStringInfo(record, VARSIZE_ANY_EXHDR(stored) + FIXED_SIZE);
	put_number(record, VARSIZE_ANY_EXHDR(stored));
	put_bytes(record, VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored));
}

/* There is room for them. */
static void
put_bytes(StringInfo record, const void *bytes, Size size)
{
	if (size > 0)
		memcpy(record->data + record->len, bytes, size);
	record->len += size;
}

/* Likewise. */
static void
put_number(StringInfo record, int64 value)
{
#ifdef WORDS_BIGENDIAN
	value = pg_bswap64(value);
#endif
	put_bytes(record, &value, sizeof(value));
}

static void
put_uint32(StringInfo image, uint32 value)
{
	put_uint16(image, (uint16) value);
	put_uint16(image, (uint16) (value >> 16));
}

static void
put_uint16(StringInfo image, uint16 value)
{
	appendStringInfoChar(image, (char) value);
	appendStringInfoChar(image, (char) (value >> 8));
}
