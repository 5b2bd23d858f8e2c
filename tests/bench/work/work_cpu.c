/* SPDX-License-Identifier: Apache-2.0
 * tests/bench/work/work_cpu.c - loops that stay in user mode: integer and floating point, copies,
 * memory latency. Nothing here calls the C library inside of its loops, so that every processor
 * model runs the same instructions. */
#include <emmintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/bench/work/work.h"

static void *big(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        work_die("mmap");
    }
    memset(p, 1, size);
    return p;
}

/* --- CRC-32 by table, units of 64 KiB ----------------------------------------------------------
 */

enum { CHUNK = 64 << 10 };

static uint32_t crc_table[256];

static void crc_prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) {
            c = (c & 1) != 0 ? 0xedb88320 ^ c >> 1 : c >> 1;
        }
        crc_table[i] = c;
    }
}

static void *crc_part(void *arg)
{
    uint8_t *buf = malloc(CHUNK);
    uint32_t crc = (uint32_t)(uintptr_t)arg;

    for (unsigned i = 0; i < CHUNK; i++) {
        buf[i] = (uint8_t)(i * 31 + crc);
    }
    for (uint64_t n = work_count / work_threads; n > 0; n--) {
        for (unsigned i = 0; i < CHUNK; i++) {
            crc = crc_table[(crc ^ buf[i]) & 0xff] ^ crc >> 8;
        }
    }
    work_sink += crc;
    free(buf);
    return NULL;
}

static void crc(void)
{
    work_on_all(crc_part);
}

/* --- SHA-256 (FIPS 180-4) of blocks in a row, units of 64 KiB ----------------------------------
 */

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static void sha_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], i = h[7];

    for (int t = 0; t < 16; t++) {
        uint32_t x;
        memcpy(&x, p + t * 4, 4);
        w[t] = __builtin_bswap32(x);
    }
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    for (int t = 0; t < 64; t++) {
        uint32_t s1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
        uint32_t t1 = i + s1 + ((e & f) ^ (~e & g)) + sha_k[t] + w[t];
        uint32_t s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        i = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d;
    h[4] += e, h[5] += f, h[6] += g, h[7] += i;
}

static void *sha_part(void *arg)
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t *buf = malloc(CHUNK);

    memset(buf, (int)(uintptr_t)arg, CHUNK);
    for (uint64_t n = work_count / work_threads; n > 0; n--) {
        for (unsigned at = 0; at < CHUNK; at += 64) {
            sha_block(h, buf + at);
        }
    }
    work_sink += h[0];
    free(buf);
    return NULL;
}

static void sha256(void)
{
    work_on_all(sha_part);
}

/* --- the sieve of Eratosthenes, units of all primes below 2^20 ---------------------------------
 */

static void *sieve_part(void *arg)
{
    enum { LIMIT = 1 << 20 };
    uint8_t *composite = malloc(LIMIT);
    uint64_t primes = 0;

    (void)arg;
    for (uint64_t n = work_count / work_threads; n > 0; n--) {
        for (unsigned i = 0; i < LIMIT; i++) {
            composite[i] = 0;
            __asm__ volatile("" : : : "memory"); /* no call of memset */
        }
        for (unsigned i = 2; i < LIMIT; i++) {
            if (composite[i] == 0) {
                primes++;
                for (unsigned k = 2 * i; k < LIMIT; k += i) {
                    composite[k] = 1;
                }
            }
        }
    }
    work_sink += primes;
    free(composite);
    return NULL;
}

static void sieve(void)
{
    work_on_all(sieve_part);
}

/* --- product of two matrices of doubles, one of SIDE rows a unit -------------------------------
 */

enum { SIDE = 128 };

static double ma[SIDE][SIDE], mb[SIDE][SIDE], mc[SIDE][SIDE];
static long double la[SIDE][SIDE], lb[SIDE][SIDE], lc[SIDE][SIDE];

static void matrix_prepare(void)
{
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            ma[i][j] = 1.0 / (i + j + 1);
            mb[i][j] = (double)(i - j) / SIDE;
            la[i][j] = 1.0L / (i + j + 1);
            lb[i][j] = (long double)(i - j) / SIDE;
        }
    }
}

__attribute__((optimize("no-tree-vectorize"))) static void matrix_scalar(void)
{
    for (uint64_t n = work_count; n > 0; n--) {
        for (int i = 0; i < SIDE; i++) {
            for (int j = 0; j < SIDE; j++) {
                double sum = 0;
                for (int k = 0; k < SIDE; k++) {
                    sum += ma[i][k] * mb[k][j];
                }
                mc[i][j] = sum;
            }
        }
        work_sink += (uint64_t)mc[n % SIDE][3];
    }
}

/* On the x87. */
static void matrix_long(void)
{
    for (uint64_t n = work_count; n > 0; n--) {
        for (int i = 0; i < SIDE; i++) {
            for (int j = 0; j < SIDE; j++) {
                long double sum = 0;
                for (int k = 0; k < SIDE; k++) {
                    sum += la[i][k] * lb[k][j];
                }
                lc[i][j] = sum;
            }
        }
        work_sink += (uint64_t)lc[n % SIDE][3];
    }
}

static void matrix_packed(void)
{
    for (uint64_t n = work_count; n > 0; n--) {
        for (int i = 0; i < SIDE; i++) {
            for (int j = 0; j < SIDE; j += 8) {
                __m128d s0 = _mm_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;
                for (int k = 0; k < SIDE; k++) {
                    __m128d a = _mm_set1_pd(ma[i][k]);
                    s0 = _mm_add_pd(s0, _mm_mul_pd(a, _mm_loadu_pd(&mb[k][j])));
                    s1 = _mm_add_pd(s1, _mm_mul_pd(a, _mm_loadu_pd(&mb[k][j + 2])));
                    s2 = _mm_add_pd(s2, _mm_mul_pd(a, _mm_loadu_pd(&mb[k][j + 4])));
                    s3 = _mm_add_pd(s3, _mm_mul_pd(a, _mm_loadu_pd(&mb[k][j + 6])));
                }
                _mm_storeu_pd(&mc[i][j], s0);
                _mm_storeu_pd(&mc[i][j + 2], s1);
                _mm_storeu_pd(&mc[i][j + 4], s2);
                _mm_storeu_pd(&mc[i][j + 6], s3);
            }
        }
        work_sink += (uint64_t)mc[n % SIDE][3];
    }
}

/* --- copies, units of 1 MiB: within the second-level cache, and beyond it ----------------------
 */

enum { SMALL = 128 << 10, LARGE = 16 << 20, COPY_UNIT = 1 << 20 };

static uint8_t *from, *to;

static void small_prepare(void)
{
    from = big(SMALL);
    to = big(SMALL);
}

static void large_prepare(void)
{
    from = big(LARGE);
    to = big(LARGE);
}

/* 64 bytes a turn, as copies of C libraries do without AVX. */
static void sse_copy(uint8_t *d, const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n; i += 64) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(s + i));
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(s + i + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(s + i + 32));
        __m128i e = _mm_loadu_si128((const __m128i *)(const void *)(s + i + 48));
        _mm_store_si128((__m128i *)(void *)(d + i), a);
        _mm_store_si128((__m128i *)(void *)(d + i + 16), b);
        _mm_store_si128((__m128i *)(void *)(d + i + 32), c);
        _mm_store_si128((__m128i *)(void *)(d + i + 48), e);
    }
}

static void rep_copy(uint8_t *d, const uint8_t *s, size_t n)
{
    n /= 8;
    __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}

/* Copies @work_count units in pieces of @piece bytes through buffers of @size bytes. */
static inline void copies(void (*copy)(uint8_t *, const uint8_t *, size_t), size_t size,
                          size_t piece)
{
    size_t at = 0;

    for (uint64_t left = work_count * COPY_UNIT; left > 0; left -= piece) {
        copy(to + at, from + at, piece);
        at = (at + piece) % size;
    }
    work_sink += to[at];
}

static void sse_small(void)
{
    copies(sse_copy, SMALL, 16 << 10);
}

static void sse_large(void)
{
    copies(sse_copy, LARGE, 64 << 10);
}

static void rep_small(void)
{
    copies(rep_copy, SMALL, 16 << 10);
}

/* --- a chase of pointers through 64 MiB in random order, units of 1000 -------------------------
 */

enum { CHASE_SIZE = 64 << 20, LINE = 64, LINES = CHASE_SIZE / LINE };

struct line {
    struct line *next;
    uint8_t rest[LINE - sizeof(void *)];
};

static struct line *chase_at;

/* One cycle through all lines: Sattolo's shuffle by a fixed generator. */
static void chase_prepare(void)
{
    struct line *lines = big(CHASE_SIZE);
    uint32_t *order = malloc(LINES * sizeof *order);
    uint64_t x = 88172645463325252U;

    for (uint32_t i = 0; i < LINES; i++) {
        order[i] = i;
    }
    for (uint32_t i = LINES - 1; i > 0; i--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint32_t j = (uint32_t)(x % i), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < LINES; i++) {
        lines[order[i]].next = &lines[order[(i + 1) % LINES]];
    }
    chase_at = &lines[order[0]];
    free(order);
}

static void chase(void)
{
    struct line *p = chase_at;

    for (uint64_t n = work_count * 1000; n > 0; n--) {
        p = p->next;
    }
    work_sink += (uintptr_t)p;
}

const struct work works_cpu[] = {
    {"sha256", NULL, sha256, 800, "64 KiB"},
    {"crc32", crc_prepare, crc, 2000, "64 KiB"},
    {"compute", crc_prepare, crc, 384, "64 KiB"},
    {"sieve", NULL, sieve, 100, "2^20 numbers"},
    {"matrix", matrix_prepare, matrix_scalar, 200, "product"},
    {"matrix2", matrix_prepare, matrix_packed, 400, "product"},
    {"matrixl", matrix_prepare, matrix_long, 100, "product"},
    {"copy", small_prepare, sse_small, 20000, "MiB"},
    {"copybig", large_prepare, sse_large, 8000, "MiB"},
    {"repmovs", small_prepare, rep_small, 20000, "MiB"},
    {"chase", chase_prepare, chase, 10000, "1000 loads"},
    {NULL, NULL, NULL, 0, NULL},
};
