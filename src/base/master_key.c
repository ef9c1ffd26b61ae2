/*-------------------------------------------------------------------------
 * master_key.c
 *	  The keys that wrap all others, and are in no database.
 *
 * They stand in a file of the server, which a setting names and nobody but the server may read: each
 * a line of 64 hexadecimal digits.  The first wraps what is new; those behind it are older, and open
 * what has not been wrapped anew yet.  Each is known by the beginning of a digest of it.
 *
 * A statement reads the file once, if it needs a key at all.  No message to a client says where the file
 * is, and none says anything of what is in it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/master_key.h"
#include "base/setting.h"
#include "base/sha256.h"

#define MAX_KEYS		16
#define HEX_LENGTH		(2 * AEAD_KEY_LENGTH)

/* room for all keys, and blank lines */
#define MAX_FILE_BYTES	4096

#ifdef O_NONBLOCK
#define DO_NOT_WAIT		O_NONBLOCK
#else
#define DO_NOT_WAIT		0
#endif

static char *cqrs_es_master_key_file = NULL;

/* what the file had in the statement that began then */
static MasterKey keys[MAX_KEYS];
static int	nkeys = 0;
static TimestampTz read_in = 0;

static void read_file(void);
static int	open_file(void);
static void parse_keys(const char *text);
static bool parse_key(const char *line, size_t length, uint8 *key);
pg_noreturn static void report_unreadable(const char *detail, const char *log, int error);

void
MasterKeyInit(void)
{
	SettingDefineString("cqrs_es.master_key_file",
						"The file of the server that has the keys by which keys of personal data are wrapped.",
						"Each line is a key of 64 hexadecimal digits; the first one wraps what is new.",
						&cqrs_es_master_key_file, "",
						PGC_SUSET, GUC_SUPERUSER_ONLY, NULL);
}

/* The key for what is new; good until the next call of a function here.  QE701 when there is none. */
const MasterKey *
MasterKeyCurrent(void)
{
	read_file();
	return &keys[0];
}

/* The key of that name, likewise; NULL when the file has it not.  QE701. */
const MasterKey *
MasterKeyFind(const uint8 *id)
{
	int			i;

	read_file();
	for (i = 0; i < nkeys; i++)
		if (memcmp(keys[i].id, id, MASTER_KEY_ID_LENGTH) == 0)
			return &keys[i];
	return NULL;
}

/* Read the file, unless this statement has done so. */
static void
read_file(void)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	char		content[MAX_FILE_BYTES + 1];
	ssize_t		length;
	int			file;

	if (nkeys > 0 && read_in == now)
		return;
	explicit_bzero(keys, sizeof(keys));
	nkeys = 0;
	file = open_file();
	/* not by stdio, whose buffer would keep it */
	length = read(file, content, MAX_FILE_BYTES);
	if (length < 0)
		report_unreadable("The file cannot be read.", cqrs_es_master_key_file, errno);
	CloseTransientFile(file);
	content[length] = '\0';
	parse_keys(content);
	explicit_bzero(content, sizeof(content));
	if (nkeys == 0)
		report_unreadable("The file has no key, or something else in it.", cqrs_es_master_key_file, 0);
	read_in = now;
}

/* As with the key of a server's certificate: nobody else may read it.  A pipe must not make us wait for who writes. */
static int
open_file(void)
{
	struct stat status;
	int			file;

	if (cqrs_es_master_key_file == NULL || *cqrs_es_master_key_file == '\0')
		report_unreadable("No file is set.", NULL, 0);
	file = OpenTransientFile(cqrs_es_master_key_file, O_RDONLY | PG_BINARY | DO_NOT_WAIT);
	if (file < 0)
		report_unreadable("The file cannot be opened.", cqrs_es_master_key_file, errno);
	if (fstat(file, &status) != 0)
		report_unreadable("The file cannot be looked at.", cqrs_es_master_key_file, errno);
	if (!S_ISREG(status.st_mode))
		report_unreadable("It is no ordinary file.", cqrs_es_master_key_file, 0);
#if !defined(WIN32) && !defined(__CYGWIN__)
	if ((status.st_mode & (status.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO)) != 0)
		report_unreadable("Others may read or write the file.", cqrs_es_master_key_file, 0);
#endif
	return file;
}

/* The keys of all lines; none at all when a line is neither blank nor a key. */
static void
parse_keys(const char *text)
{
	const char *line = text;

	while (*line != '\0')
	{
		size_t		length = strcspn(line, "\n");
		size_t		end = length;

		while (end > 0 && (line[end - 1] == '\r' || line[end - 1] == ' ' || line[end - 1] == '\t'))
			end--;
		if (end > 0)
		{
			Sha256Digest digest;

			if (nkeys >= MAX_KEYS || !parse_key(line, end, keys[nkeys].key))
			{
				explicit_bzero(keys, sizeof(keys));
				nkeys = 0;
				return;
			}
			Sha256((const char *) keys[nkeys].key, AEAD_KEY_LENGTH, digest.bytes);
			Sha256((const char *) digest.bytes, sizeof(digest), digest.bytes);
			memcpy(keys[nkeys].id, digest.bytes, MASTER_KEY_ID_LENGTH);
			nkeys++;
		}
		line += length + (line[length] == '\n' ? 1 : 0);
	}
}

static bool
parse_key(const char *line, size_t length, uint8 *key)
{
	static const char digits[] = "0123456789abcdef";
	size_t		i;

	if (length != HEX_LENGTH)
		return false;
	memset(key, 0, AEAD_KEY_LENGTH);
	for (i = 0; i < HEX_LENGTH; i++)
	{
		const char *digit = memchr(digits, pg_ascii_tolower((unsigned char) line[i]), sizeof(digits) - 1);

		if (digit == NULL)
			return false;
		key[i / 2] = (uint8) (key[i / 2] << 4 | (digit - digits));
	}
	return true;
}

/* QE701; the name of the file goes to the server's log alone. */
static void
report_unreadable(const char *detail, const char *log, int error)
{
	errno = error;
	ereport(ERROR,
			(errcode(ERRCODE_KEY_UNAVAILABLE),
			 errmsg("the master key of personal data cannot be read"),
			 errdetail("%s", detail),
			 log == NULL ? 0 : error == 0 ? errdetail_log("%s File: \"%s\".", detail, log) :
			 errdetail_log("%s File: \"%s\": %m.", detail, log),
			 errhint("The setting cqrs_es.master_key_file names a file of the server that has a key of 64 hexadecimal digits, and that nobody else may read.")));
}
