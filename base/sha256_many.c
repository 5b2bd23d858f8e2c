/* SPDX-License-Identifier: Apache-2.0
 * base/sha256_many.c - SHA-256 of many pieces (hash.h), two at a time where the processor has the
 * SHA extensions: one stream waits for its own rounds most of the time. FIPS 180-4, "SHA-256 Hash
 * Computation"; Intel SDM Vol. 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2. */
#include "base/hash.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 64, LANES = 2, GROUP = 64, SHA_BIT = 29 /* CPUID 7.0 EBX */ };

static const uint32_t round_constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* One stream: the rest of its whole blocks, then its padded end. */
struct lane {
    __m128i abef, cdgh;
    struct sha256_job *job; /* NULL: idle */
    const uint8_t *at;
    size_t blocks; /* left at @at */
    bool ending;   /* @at is in @end */
    uint8_t end[2 * BLOCK];
};

#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

/* @blocks blocks of each of @n lanes; @n is a constant where it is inlined. */
SHA_TARGET static inline __attribute__((always_inline)) void compress(struct lane *l, unsigned n,
                                                                      size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i *k = (const __m128i *)(const void *)round_constants;

    for (; blocks > 0; blocks--) {
        __m128i m[LANES][4], abef[LANES], cdgh[LANES];
#pragma GCC unroll 2
        for (unsigned i = 0; i < n; i++) {
            abef[i] = l[i].abef;
            cdgh[i] = l[i].cdgh;
        }
#pragma GCC unroll 16
        for (unsigned r = 0; r < 16; r++) {
#pragma GCC unroll 2
            for (unsigned i = 0; i < n; i++) {
                __m128i *w = m[i];
                if (r < 4) {
                    w[r] = _mm_shuffle_epi8(
                        _mm_loadu_si128((const __m128i *)(const void *)(l[i].at + 16 * r)), swap);
                } else {
                    __m128i x = _mm_sha256msg1_epu32(w[r % 4], w[(r + 1) % 4]);
                    x = _mm_add_epi32(x, _mm_alignr_epi8(w[(r + 3) % 4], w[(r + 2) % 4], 4));
                    w[r % 4] = _mm_sha256msg2_epu32(x, w[(r + 3) % 4]);
                }
                __m128i wk = _mm_add_epi32(w[r % 4], k[r]);
                cdgh[i] = _mm_sha256rnds2_epu32(cdgh[i], abef[i], wk);
                abef[i] = _mm_sha256rnds2_epu32(abef[i], cdgh[i], _mm_shuffle_epi32(wk, 0x0e));
            }
        }
#pragma GCC unroll 2
        for (unsigned i = 0; i < n; i++) {
            l[i].abef = _mm_add_epi32(l[i].abef, abef[i]);
            l[i].cdgh = _mm_add_epi32(l[i].cdgh, cdgh[i]);
            l[i].at += BLOCK;
        }
    }
}

SHA_TARGET static void compress_one(struct lane *l, size_t blocks)
{
    compress(l, 1, blocks);
}

SHA_TARGET static void compress_two(struct lane *l, size_t blocks)
{
    compress(l, 2, blocks);
}

static void start(struct lane *l, struct sha256_job *job)
{
    const uint32_t *h = initial;

    l->job = job;
    l->abef = _mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]);
    l->cdgh = _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7]);
    l->at = job->data;
    l->blocks = job->len / BLOCK;
    l->ending = false;
}

/* The bytes behind the last whole block, a one bit, zeros, and the length in bits. */
static void begin_end(struct lane *l)
{
    size_t left = l->job->len % BLOCK;
    uint64_t bits = __builtin_bswap64((uint64_t)l->job->len * 8);

    memset(l->end, 0, sizeof l->end);
    if (left > 0) {
        memcpy(l->end, l->at, left);
    }
    l->end[left] = 0x80;
    l->blocks = left + 1 + sizeof bits <= BLOCK ? 1 : 2;
    memcpy(l->end + l->blocks * BLOCK - sizeof bits, &bits, sizeof bits);
    l->at = l->end;
    l->ending = true;
}

static void finish(struct lane *l)
{
    uint32_t abef[4], cdgh[4];

    memcpy(abef, &l->abef, sizeof abef);
    memcpy(cdgh, &l->cdgh, sizeof cdgh);
    const uint32_t h[8] = {abef[3], abef[2], cdgh[3], cdgh[2], abef[1], abef[0], cdgh[1], cdgh[0]};
    for (int i = 0; i < 8; i++) {
        uint32_t big = __builtin_bswap32(h[i]);
        memcpy(l->job->sha + 4 * i, &big, sizeof big);
    }
    l->job = NULL;
}

/* Those of @waiting not begun yet. The longest goes first, so that at the end one lane has little
 * to do alone. */
static struct sha256_job *take_longest(struct sha256_job *jobs, uint64_t *waiting)
{
    struct sha256_job *longest = NULL;

    for (uint64_t w = *waiting; w != 0; w &= w - 1) {
        struct sha256_job *j = &jobs[__builtin_ctzll(w)];
        longest = longest == NULL || j->len > longest->len ? j : longest;
    }
    if (longest != NULL) {
        *waiting &= ~(UINT64_C(1) << (longest - jobs));
    }
    return longest;
}

/* Go to where the lane has blocks, over ends and jobs. False: nothing is left for it. */
static bool ready(struct lane *l, struct sha256_job *jobs, uint64_t *waiting)
{
    while (l->job == NULL || l->blocks == 0) {
        if (l->job == NULL) {
            struct sha256_job *j = take_longest(jobs, waiting);
            if (j == NULL) {
                return false;
            }
            start(l, j);
        } else if (!l->ending) {
            begin_end(l);
        } else {
            finish(l);
        }
    }
    return true;
}

/* Asked once: under a hypervisor CPUID takes as long as hashing some blocks. */
static bool has_extensions(void)
{
    enum { UNKNOWN, NO, YES };
    static int known;
    unsigned a, b, c, d;
    int has = __atomic_load_n(&known, __ATOMIC_RELAXED);

    if (has == UNKNOWN) {
        has = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> SHA_BIT & 1) != 0 ? YES : NO;
        __atomic_store_n(&known, has, __ATOMIC_RELAXED);
    }
    return has == YES;
}

/* At most GROUP jobs. */
static void hash_group(struct sha256_job *jobs, size_t n)
{
    uint64_t waiting = n == GROUP ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
    struct lane lanes[LANES];

    for (int i = 0; i < LANES; i++) {
        lanes[i].job = NULL;
    }
    for (;;) {
        bool first = ready(&lanes[0], jobs, &waiting), second = ready(&lanes[1], jobs, &waiting);
        if (first && second) {
            size_t both = lanes[0].blocks < lanes[1].blocks ? lanes[0].blocks : lanes[1].blocks;
            compress_two(lanes, both);
            lanes[0].blocks -= both;
            lanes[1].blocks -= both;
        } else if (first || second) {
            struct lane *l = first ? &lanes[0] : &lanes[1];
            compress_one(l, l->blocks);
            l->blocks = 0;
        } else {
            break;
        }
    }
}

void sha256_many(struct sha256_job *jobs, size_t n)
{
    if (!has_extensions()) {
        for (size_t i = 0; i < n; i++) {
            sha256(jobs[i].data, jobs[i].len, jobs[i].sha);
        }
        return;
    }
    for (size_t at = 0; at < n; at += GROUP) {
        hash_group(jobs + at, n - at < GROUP ? n - at : GROUP);
    }
}
