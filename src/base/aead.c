/*-------------------------------------------------------------------------
 * aead.c
 *	  Bytes that only who has the key can read, and nobody can change or move.
 *
 * AES-256 in Galois/counter mode, of the OpenSSL that the server itself is linked with; there is
 * no cipher of our own.  What is sealed is a random nonce, the ciphertext and a tag.  The tag is
 * also of what the bytes are about, which is not sealed with them: who opens them must say the
 * same, so they are of no use in another place.
 *
 * Random nonces of 96 bits are good for some 2^32 seals under one key, of which a person has few.
 *
 * Where the server was built without OpenSSL, or its headers were not there when this was built,
 * all of it is refused.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#if defined(USE_OPENSSL) && defined(__has_include)
#if __has_include(<openssl/evp.h>)
#include <openssl/evp.h>
#define HAS_AES
#endif
#endif

#include "port/pg_bswap.h"

#include "base/aead.h"
#include "base/compat.h"

pg_noreturn static void report_failure(void);

/* 0A000 where there is no AES. */
void
AeadRequire(void)
{
#ifndef HAS_AES
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("nothing can be encrypted by this server"),
			 errdetail("The server, or this extension, was built without OpenSSL.")));
#endif
}

/* Bytes that nobody can guess. */
void
AeadRandom(void *bytes, size_t length)
{
	if (!pg_strong_random(bytes, length))
		elog(ERROR, "could not generate random values");
}

/* Add one thing that the bytes are about; with its length, so that no two lists are the same. */
void
AeadAddTo(StringInfo about, const void *data, size_t length)
{
	uint32		size = pg_hton32((uint32) length);

	appendBinaryStringInfo(about, (const char *) &size, sizeof(size));
	appendBinaryStringInfo(about, data, (int) length);
}

#ifdef HAS_AES

/* Seal some bytes; `sealed` has room for AEAD_OVERHEAD more. */
void
AeadSeal(const uint8 *key, const StringInfoData *about, const void *plain, int length, uint8 *sealed)
{
	uint8	   *ciphertext = sealed + AEAD_NONCE_LENGTH;
	EVP_CIPHER_CTX *context;
	int			n;
	bool		done;

	AeadRandom(sealed, AEAD_NONCE_LENGTH);
	context = EVP_CIPHER_CTX_new();
	done = context != NULL &&
		EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, sealed) == 1 &&
		EVP_EncryptUpdate(context, NULL, &n, (const uint8 *) about->data, about->len) == 1 &&
		EVP_EncryptUpdate(context, ciphertext, &n, plain, length) == 1 &&
		EVP_EncryptFinal_ex(context, ciphertext + n, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, AEAD_TAG_LENGTH, ciphertext + length) == 1;
	EVP_CIPHER_CTX_free(context);
	if (!done)
		report_failure();
}

/*
 * Open `length` bytes that were sealed; `plain` has room for as many less AEAD_OVERHEAD.  False when
 * it was not this key, or about something else, or they were changed.
 */
bool
AeadOpen(const uint8 *key, const StringInfoData *about, const uint8 *sealed, int length, void *plain)
{
	const uint8 *ciphertext = sealed + AEAD_NONCE_LENGTH;
	int			plain_length = length - AEAD_OVERHEAD;
	uint8		tag[AEAD_TAG_LENGTH];
	EVP_CIPHER_CTX *context;
	int			n;
	bool		ready;
	bool		done;

	if (plain_length < 0)
		return false;
	memcpy(tag, ciphertext + plain_length, sizeof(tag));
	context = EVP_CIPHER_CTX_new();
	ready = context != NULL &&
		EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, sealed) == 1 &&
		EVP_DecryptUpdate(context, NULL, &n, (const uint8 *) about->data, about->len) == 1 &&
		EVP_DecryptUpdate(context, plain, &n, ciphertext, plain_length) == 1 &&
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, sizeof(tag), tag) == 1;
	done = ready && EVP_DecryptFinal_ex(context, (uint8 *) plain + n, &n) == 1;
	EVP_CIPHER_CTX_free(context);
	if (!ready)
		report_failure();
	if (!done)
		explicit_bzero(plain, plain_length);
	return done;
}

#else

void
AeadSeal(const uint8 *key, const StringInfoData *about, const void *plain, int length, uint8 *sealed)
{
	AeadRequire();
	report_failure();
}

bool
AeadOpen(const uint8 *key, const StringInfoData *about, const uint8 *sealed, int length, void *plain)
{
	AeadRequire();
	report_failure();
}

#endif							/* HAS_AES */

/* Where memory is short, or AES is forbidden. */
static void
report_failure(void)
{
	elog(ERROR, "OpenSSL could not encrypt or decrypt");
}
