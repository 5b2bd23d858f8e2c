/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/program/vector.c - like mixed.c, in what pollux-v3 adds: AVX and AVX2 on both lengths,
 * FMA, half precision, gathers, masked moves, BMI1 and BMI2, LZCNT, TZCNT, MOVBE; in loops and
 * between branches, so that it is translated where the host can.
 *
 * It uses neither system calls nor PUSHF, so being single-stepped cannot be seen from inside. */
#include <immintrin.h>

#include "tests/isa/program/program.h"

enum { WORDS = 256, TURNS = 60 };

static uint64_t words[WORDS] = {1};
static float floats[64] = {1.0f};
static double doubles[64] = {1.0};

static __attribute__((noinline)) uint64_t bits(uint64_t a, uint64_t b)
{
    uint64_t sum = _andn_u64(a, b) + _blsi_u64(a) + _blsmsk_u64(b) + _blsr_u64(a);
    unsigned long long high;

    sum +=
        _bextr_u64(a, (unsigned)b & 63, (unsigned)(b >> 8) & 63) + _bzhi_u64(b, (unsigned)a & 127);
    sum ^= _pdep_u64(a, b) + _pext_u64(b, a) + _lzcnt_u64(a) * 3 + _tzcnt_u64(b) * 5;
    sum += _mulx_u64(a, b, &high);
    sum ^= high + __builtin_bswap64(words[a % WORDS]);
    sum = _blsr_u64(sum) == 0 ? sum + 1 : sum >> (a & 63); /* SHRX; a branch on what BLSR says */
    sum += (uint32_t)_lzcnt_u32((uint32_t)b) + (uint32_t)((int64_t)a >> (b & 63));
    return _blsi_u64(b) == 1 ? ~sum : sum;
}

static __attribute__((noinline)) void integers(void)
{
    __m256i sum = _mm256_setzero_si256(), mask = _mm256_set1_epi64x(0x00ff00ff0f0f3333);

    for (unsigned i = 0; i < WORDS; i++) {
        words[i] = next();
    }
    for (unsigned i = 0; i + 4 <= WORDS; i += 4) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(words + i));
        __m256i w = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, mask), 0x1b);
        sum = _mm256_add_epi32(sum,
                               _mm256_xor_si256(v, _mm256_sllv_epi32(w, _mm256_srli_epi32(v, 27))));
        sum = _mm256_blendv_epi8(sum, _mm256_mulhi_epu16(v, w), _mm256_cmpgt_epi16(v, w));
        if (_mm256_movemask_epi8(sum) & 0x100) {
            sum = _mm256_sub_epi8(sum, _mm256_packus_epi32(v, w));
        }
        __m128i half = _mm_madd_epi16(_mm256_extracti128_si256(sum, 1), _mm256_castsi256_si128(v));
        half = _mm_mpsadbw_epu8(half, _mm256_castsi256_si128(w), 5);
        sum = _mm256_inserti128_si256(sum, half, 0);
    }
    _mm256_storeu_si256((__m256i *)results, sum);
    _mm256_zeroupper();
    for (unsigned i = 0; i + 1 < WORDS; i++) {
        results[4] += bits(words[i], words[i + 1]);
    }
}

static __attribute__((noinline)) void gathers(void)
{
    __m256i at = _mm256_set_epi32(1, 60, 7, 22, 0, 43, 9, 18), sum = _mm256_setzero_si256();

    for (unsigned i = 0; i < TURNS; i++) {
        __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)next()), at);
        __m256i v = _mm256_mask_i32gather_epi32(sum, (const int *)words, at, mask, 4);
        sum = _mm256_add_epi32(sum, v);
        _mm256_maskstore_epi32((int *)(results + 8), mask, sum);
        at = _mm256_and_si256(_mm256_add_epi32(at, v), _mm256_set1_epi32(63));
    }
    _mm256_storeu_si256((__m256i *)(results + 12), sum);
}

static __attribute__((noinline)) void floating(void)
{
    __m256 a = _mm256_setzero_ps();
    __m256d d = _mm256_set1_pd(1.5);

    for (unsigned i = 0; i < 64; i++) {
        floats[i] = (float)(int32_t)next() / 65536.0f;
        doubles[i] = (double)(int64_t)next() * 0.001;
    }
    for (unsigned t = 0; t < TURNS; t++) {
        __m256 x = _mm256_loadu_ps(floats + t % 7 * 8), y = _mm256_loadu_ps(floats + t % 5 * 8 + 3);
        __m256d z = _mm256_loadu_pd(doubles + t % 13 * 4);
        a = _mm256_fmadd_ps(x, y, _mm256_hadd_ps(a, x));
        a = _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_max_ps(a, y), 0));
        d = _mm256_fnmsub_pd(d, _mm256_set1_pd(0.25), _mm256_sqrt_pd(_mm256_and_pd(z, d)));
        d = _mm256_div_pd(d, _mm256_add_pd(_mm256_round_pd(z, 1), _mm256_set1_pd(3)));
        if (_mm256_movemask_ps(_mm256_cmp_ps(a, x, _CMP_NLT_UQ)) == 0xff) {
            a = _mm256_permute2f128_ps(a, y, 0x21);
        }
    }
    _mm256_storeu_ps((float *)(results + 16), a);
    _mm256_storeu_pd((double *)(results + 20), d);
}

static __attribute__((used)) void program(void)
{
    integers();
    gathers();
    floating();
}
