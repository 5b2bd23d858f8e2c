/* SPDX-License-Identifier: Apache-2.0
 * base/hash.h - the fast 128-bit hash of digests (XXH3-128, a fixed published function, the same
 * on every host) and SHA-256 of files (OpenSSL). Pure; any thread. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct hash128 {
    uint64_t lo, hi;
};

/* H(seed, bytes). */
struct hash128 hash128(const void *data, size_t len, uint64_t seed);
/* a + b and a - b modulo 2^128: the commutative sum of a digest over pages. */
struct hash128 hash128_add(struct hash128 a, struct hash128 b);
struct hash128 hash128_sub(struct hash128 a, struct hash128 b);
int hash128_eq(struct hash128 a, struct hash128 b);
enum { HASH128_HEX = 33 };
/* 32 hex digits and a NUL, high half first. */
const char *hash128_hex(struct hash128 h, char out[HASH128_HEX]);

enum { SHA256_LEN = 32, SHA256_HEX = 65 };
void sha256(const void *data, size_t len, uint8_t out[SHA256_LEN]);
struct sha256_job {
    const void *data;
    size_t len;
    uint8_t sha[SHA256_LEN]; /* set by sha256_many */
};
/* Many at once, which takes less time than one after the other. */
void sha256_many(struct sha256_job *jobs, size_t n);
int sha256_file(const char *path, uint8_t out[SHA256_LEN], struct plx_err *err);
const char *sha256_hex(const uint8_t sha[SHA256_LEN], char out[SHA256_HEX]);

#endif
