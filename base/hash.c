/* SPDX-License-Identifier: Apache-2.0
 * base/hash.c - see hash.h. */
#include "base/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/io.h"

struct hash128 hash128(const void *data, size_t len, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(data, len, seed);

    return (struct hash128){.lo = h.low64, .hi = h.high64};
}

struct hash128 hash128_add(struct hash128 a, struct hash128 b)
{
    struct hash128 s = {.lo = a.lo + b.lo, .hi = a.hi + b.hi};

    s.hi += s.lo < a.lo;
    return s;
}

struct hash128 hash128_sub(struct hash128 a, struct hash128 b)
{
    return (struct hash128){.lo = a.lo - b.lo, .hi = a.hi - b.hi - (a.lo < b.lo)};
}

int hash128_eq(struct hash128 a, struct hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

const char *hash128_hex(struct hash128 h, char out[HASH128_HEX])
{
    (void)snprintf(out, HASH128_HEX, "%016llx%016llx", (unsigned long long)h.hi,
                   (unsigned long long)h.lo);
    return out;
}

void sha256(const void *data, size_t len, uint8_t out[SHA256_LEN])
{
    PLX_CHECK(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1);
}

int sha256_file(const char *path, uint8_t out[SHA256_LEN], struct plx_err *err)
{
    static const size_t chunk = 1 << 16;
    uint8_t buf[1 << 16];
    EVP_MD_CTX *md;
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    md = EVP_MD_CTX_new();
    if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
        rc = plx_fail(err, PLX_ENOMEM, "cannot hash %s: out of memory", path);
        goto out;
    }
    for (;;) {
        ssize_t n = io_read_some(fd, buf, chunk);
        if (n < 0) {
            rc = plx_fail_errno(err, "cannot read %s", path);
            goto out;
        }
        if (n == 0) {
            break;
        }
        PLX_CHECK(EVP_DigestUpdate(md, buf, (size_t)n) == 1);
    }
    PLX_CHECK(EVP_DigestFinal_ex(md, out, NULL) == 1);
out:
    EVP_MD_CTX_free(md);
    (void)close(fd);
    return rc;
}

const char *sha256_hex(const uint8_t sha[SHA256_LEN], char out[SHA256_HEX])
{
    for (int i = 0; i < SHA256_LEN; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", sha[i]);
    }
    return out;
}
