#include "net/noise.h"

#include <sodium.h>
#include <string.h>

/* At most a hash long, so h starts as the name itself, padded with zeros. */
static const char name[] = "Noise_IK_25519_ChaChaPoly_SHA512";

_Static_assert(FC_NOISE_HASH == crypto_hash_sha512_BYTES, "SHA-512");
_Static_assert(FC_NOISE_TAG == crypto_aead_chacha20poly1305_ietf_ABYTES, "Poly1305");

/* ---- ENCRYPT, DECRYPT, REKEY ---- */

/* 32 zero bits, then the number in little-endian. */
static void fill_nonce(unsigned char out[12], uint64_t nonce)
{
    memset(out, 0, 4);
    for (int i = 0; i < 8; i++)
        out[4 + i] = (unsigned char)(nonce >> (8 * i));
}

void fc_noise_encrypt(const unsigned char key[FC_KEY_SIZE], uint64_t nonce,
                      const unsigned char *bound, size_t n_bound, const unsigned char *in,
                      size_t len, unsigned char *out)
{
    unsigned char number[12];
    fill_nonce(number, nonce);
    crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, in, len, bound, n_bound, NULL, number,
                                              key);
}

bool fc_noise_decrypt(const unsigned char key[FC_KEY_SIZE], uint64_t nonce,
                      const unsigned char *bound, size_t n_bound, const unsigned char *in,
                      size_t len, unsigned char *out)
{
    unsigned char number[12];
    fill_nonce(number, nonce);
    return crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, in, len, bound, n_bound,
                                                     number, key) == 0;
}

void fc_noise_rekey(unsigned char key[FC_KEY_SIZE])
{
    unsigned char block[FC_KEY_SIZE + FC_NOISE_TAG] = {0};
    fc_noise_encrypt(key, UINT64_MAX, NULL, 0, block, FC_KEY_SIZE, block);
    memcpy(key, block, FC_KEY_SIZE);
    sodium_memzero(block, sizeof block);
}

/* ---- the symmetric state ---- */

static void mix_hash(struct fc_noise *n, const unsigned char *data, size_t len)
{
    crypto_hash_sha512_state s;
    crypto_hash_sha512_init(&s);
    crypto_hash_sha512_update(&s, n->hash, sizeof n->hash);
    crypto_hash_sha512_update(&s, data, len);
    crypto_hash_sha512_final(&s, n->hash);
}

static void hmac(unsigned char out[FC_NOISE_HASH], const unsigned char key[FC_NOISE_HASH],
                 const unsigned char *data, size_t len)
{
    crypto_auth_hmacsha512_state s;
    crypto_auth_hmacsha512_init(&s, key, FC_NOISE_HASH);
    crypto_auth_hmacsha512_update(&s, data, len);
    crypto_auth_hmacsha512_final(&s, out);
    sodium_memzero(&s, sizeof s);
}

/* HKDF with two outputs. */
static void derive(unsigned char first[FC_NOISE_HASH], unsigned char second[FC_NOISE_HASH],
                   const unsigned char chain[FC_NOISE_HASH], const unsigned char *material,
                   size_t len)
{
    unsigned char temporary[FC_NOISE_HASH], more[FC_NOISE_HASH + 1], one = 1;
    hmac(temporary, chain, material, len);
    hmac(first, temporary, &one, 1);
    memcpy(more, first, FC_NOISE_HASH);
    more[FC_NOISE_HASH] = 2;
    hmac(second, temporary, more, sizeof more);
    sodium_memzero(temporary, sizeof temporary);
    sodium_memzero(more, sizeof more);
}

/* MixKey(DH(pair, public_key)). False for a public key of small order, whose product is zero
 * whatever the secret is. */
static bool mix_product(struct fc_noise *n, const struct fc_key_pair *pair,
                        const unsigned char public_key[FC_KEY_SIZE])
{
    unsigned char product[FC_KEY_SIZE], key[FC_NOISE_HASH], chain[FC_NOISE_HASH];
    if (crypto_scalarmult(product, pair->secret, public_key) != 0)
        return false;
    derive(chain, key, n->chain, product, sizeof product);
    memcpy(n->chain, chain, sizeof chain);
    memcpy(n->key, key, FC_KEY_SIZE);
    n->nonce = 0;
    sodium_memzero(product, sizeof product);
    sodium_memzero(key, sizeof key);
    sodium_memzero(chain, sizeof chain);
    return true;
}

static void encrypt_and_hash(struct fc_noise *n, const unsigned char *in, size_t len,
                             unsigned char *out)
{
    fc_noise_encrypt(n->key, n->nonce++, n->hash, sizeof n->hash, in, len, out);
    mix_hash(n, out, len + FC_NOISE_TAG);
}

static bool decrypt_and_hash(struct fc_noise *n, const unsigned char *in, size_t len,
                             unsigned char *out)
{
    if (!fc_noise_decrypt(n->key, n->nonce++, n->hash, sizeof n->hash, in, len, out))
        return false;
    mix_hash(n, in, len);
    return true;
}

/* ---- the pattern ---- */

void fc_noise_start(struct fc_noise *n, const unsigned char *prologue, size_t n_prologue,
                    const struct fc_key_pair *own, const unsigned char responder[FC_KEY_SIZE])
{
    sodium_memzero(n, sizeof *n);
    n->own = *own; /* field by field: no copy of the secret is left on the stack */
    memcpy(n->hash, name, sizeof name - 1);
    memcpy(n->chain, n->hash, sizeof n->chain);
    memcpy(n->peer, responder, FC_KEY_SIZE);
    mix_hash(n, prologue, n_prologue);
    mix_hash(n, responder, FC_KEY_SIZE);
}

static void take_ephemeral(struct fc_noise *n, const unsigned char secret[FC_KEY_SIZE],
                           unsigned char *out)
{
    memcpy(n->ephemeral.secret, secret, FC_KEY_SIZE);
    crypto_scalarmult_base(n->ephemeral.public_key, secret);
    memcpy(out, n->ephemeral.public_key, FC_KEY_SIZE);
    mix_hash(n, out, FC_KEY_SIZE);
}

static void read_ephemeral(struct fc_noise *n, const unsigned char *in)
{
    memcpy(n->peer_ephemeral, in, FC_KEY_SIZE);
    mix_hash(n, in, FC_KEY_SIZE);
}

bool fc_noise_write_first(struct fc_noise *n, const unsigned char ephemeral[FC_KEY_SIZE],
                          const unsigned char *payload, size_t len, unsigned char *out)
{
    unsigned char *own = out + FC_KEY_SIZE, *rest = own + FC_KEY_SIZE + FC_NOISE_TAG;
    take_ephemeral(n, ephemeral, out);
    if (!mix_product(n, &n->ephemeral, n->peer)) /* es */
        return false;
    encrypt_and_hash(n, n->own.public_key, FC_KEY_SIZE, own);
    if (!mix_product(n, &n->own, n->peer)) /* ss */
        return false;
    encrypt_and_hash(n, payload, len, rest);
    return true;
}

bool fc_noise_read_first(struct fc_noise *n, const unsigned char *in, size_t len,
                         unsigned char *payload)
{
    const unsigned char *theirs = in + FC_KEY_SIZE, *rest = theirs + FC_KEY_SIZE + FC_NOISE_TAG;
    if (len < FC_NOISE_FIRST)
        return false;
    read_ephemeral(n, in);
    return mix_product(n, &n->own, n->peer_ephemeral) && /* es */
           decrypt_and_hash(n, theirs, FC_KEY_SIZE + FC_NOISE_TAG, n->peer) &&
           mix_product(n, &n->own, n->peer) && /* ss */
           decrypt_and_hash(n, rest, len - (size_t)(rest - in), payload);
}

bool fc_noise_write_second(struct fc_noise *n, const unsigned char ephemeral[FC_KEY_SIZE],
                           const unsigned char *payload, size_t len, unsigned char *out)
{
    take_ephemeral(n, ephemeral, out);
    if (!mix_product(n, &n->ephemeral, n->peer_ephemeral) || /* ee */
        !mix_product(n, &n->ephemeral, n->peer))             /* se */
        return false;
    encrypt_and_hash(n, payload, len, out + FC_KEY_SIZE);
    return true;
}

bool fc_noise_read_second(struct fc_noise *n, const unsigned char *in, size_t len,
                          unsigned char *payload)
{
    if (len < FC_NOISE_SECOND)
        return false;
    read_ephemeral(n, in);
    return mix_product(n, &n->ephemeral, n->peer_ephemeral) && /* ee */
           mix_product(n, &n->own, n->peer_ephemeral) &&       /* se */
           decrypt_and_hash(n, in + FC_KEY_SIZE, len - FC_KEY_SIZE, payload);
}

void fc_noise_split(const struct fc_noise *n, unsigned char to_responder[FC_KEY_SIZE],
                    unsigned char to_initiator[FC_KEY_SIZE])
{
    unsigned char first[FC_NOISE_HASH], second[FC_NOISE_HASH];
    derive(first, second, n->chain, NULL, 0);
    memcpy(to_responder, first, FC_KEY_SIZE);
    memcpy(to_initiator, second, FC_KEY_SIZE);
    sodium_memzero(first, sizeof first);
    sodium_memzero(second, sizeof second);
}
