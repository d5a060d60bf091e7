/* Vectors of floats as wide as the machine's registers, in GCC's and Clang's own vector extension, so that one text
 * serves AVX-512, AVX2, NEON and plain SSE; and what every kernel needs of them: loads and stores of float32 and
 * bfloat16, exp, tanh. Knows no tensor.
 *
 * Never built with -ffast-math: a NaN that goes in must come out.
 */
#ifndef ESPALIER_VECTORS_H
#define ESPALIER_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define LANES 16
#define WIDE 1
#elif defined(__AVX__)
#include <immintrin.h>
#define LANES 8
#define WIDE 0
#else
#define LANES 4
#define WIDE 0
#endif

/* Products of pairs of bfloat16 summed in float32: VDPBF16PS. */
#if WIDE && defined(__AVX512BF16__)
#define PAIRS 1
#else
#define PAIRS 0
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef uint16_t half; /* a bfloat16's bits */
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int8_t codes_anywhere __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef half halves __attribute__((vector_size(2 * LANES)));
typedef half halves_anywhere __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE vec fill(float x) { return x - (vec){0}; }
INLINE vec choose(ints mask, vec yes, vec no) { return (vec)(((ints)yes & mask) | ((ints)no & ~mask)); }
/* Of either b is taken where one of the two is NaN. */
INLINE vec larger(vec a, vec b) {
#if WIDE
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return choose(a > b, a, b);
#endif
}
INLINE vec smaller(vec a, vec b) {
#if WIDE
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#else
    return choose(a < b, a, b);
#endif
}

INLINE float sum_of(vec x) { /* always in this order: halves, halves of halves */
#if WIDE
    return _mm512_reduce_add_ps((__m512)x);
#else
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
#endif
}
INLINE float largest_of(vec x) {
#if WIDE
    return _mm512_reduce_max_ps((__m512)x);
#else
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
    return x[0];
#endif
}
/* Lanes low .. high of `inside`, the others of `outside`. */
INLINE vec between(long low, long high, vec inside, vec outside) {
#if WIDE
    uint32_t upper = high >= LANES ? 0xffffu : high <= 0 ? 0 : (1u << high) - 1;
    uint32_t lower = low <= 0 ? 0 : low >= LANES ? 0xffffu : (1u << low) - 1;
    return (vec)_mm512_mask_mov_ps((__m512)outside, (__mmask16)(upper & ~lower), (__m512)inside);
#else
    for (int i = 0; i < LANES; i++) inside[i] = i >= low && i < high ? inside[i] : outside[i];
    return inside;
#endif
}

/* --- bfloat16 */

INLINE vec widen(halves x) {
#if WIDE /* else GCC goes by halves */
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)x), 16);
#else
    return (vec)(__builtin_convertvector(x, bits) << 16);
#endif
}

INLINE bits rounded(vec x) { /* to the nearest bfloat16, ties to even; the 16 bits low in each lane */
    bits u = (bits)x;
    bits near = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits nan = (bits)(x != x);
    return (near & ~nan) | (((u >> 16) | 0x40u) & nan);
}
INLINE halves narrow(vec x) {
#if PAIRS
    return (halves)_mm512_cvtneps_pbh((__m512)x);
#else
    return __builtin_convertvector(rounded(x), halves);
#endif
}
/* Lane by lane a pair: `low` in the low 16 bits, `high` in the high ones. */
INLINE bits pair(vec low, vec high) {
#if PAIRS
    static const uint16_t order[32] __attribute__((aligned(64))) = {
        0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    return (bits)_mm512_permutexvar_epi16(_mm512_load_si512(order), both);
#else
    return __builtin_convertvector(narrow(low), bits) | (__builtin_convertvector(narrow(high), bits) << 16);
#endif
}

/* --- codes of eight bits: whole numbers that float and bfloat16 hold exactly */

INLINE vec load_codes(const int8_t *p) {
#if WIDE
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
#elif defined(__AVX2__) /* else GCC goes one by one */
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const codes_anywhere *)p, ints), vec);
#endif
}
#if PAIRS
INLINE bits pairs_of_half(const half *p) { return *(const bits_anywhere *)p; }
INLINE bits pairs_of_codes(const int8_t *p) { /* of the floats the upper halves: nothing is rounded */
    static const uint16_t upper[32] __attribute__((aligned(64))) = {
        1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
        33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    return (bits)_mm512_permutex2var_epi16(
        (__m512i)load_codes(p), _mm512_load_si512(upper), (__m512i)load_codes(p + LANES));
}
#define LOAD_PAIRS(p) \
    _Generic((p), const half *: pairs_of_half, half *: pairs_of_half, const int8_t *: pairs_of_codes)(p)
#endif

/* One name for all types, chosen by the pointer. */
INLINE vec load_float(const float *p) { return *(const vec_anywhere *)p; }
INLINE vec load_half(const half *p) { return widen(*(const halves_anywhere *)p); }
INLINE void store_float(float *p, vec x) { *(vec_anywhere *)p = x; }
INLINE void store_half(half *p, vec x) { *(halves_anywhere *)p = narrow(x); }
#define LOAD(p) \
    _Generic((p), const float *: load_float, float *: load_float, const half *: load_half, half *: load_half, \
             const int8_t *: load_codes)(p)
#define STORE(p, x) _Generic((p), float *: store_float, half *: store_half)(p, x)

/* --- functions */

/* exp: Cephes' polynomial, an error of about one unit in the last place; 0 far below, large but finite far above. */
INLINE vec exp_of(vec x) {
    x = smaller(fill(88.3f), larger(fill(-200.0f), x)); /* in this order a NaN stays one */
    vec shifted = x * 1.44269504088896341f + 12582912.0f;
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = fill(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
#if WIDE
    return (vec)_mm512_scalef_ps((__m512)y, (__m512)n);
#else
    ints whole = (ints)shifted - 0x4b400000;
    vec scaled = (vec)((ints)y + (whole << 23));
    return choose(whole < -126, (vec){0}, scaled);
#endif
}

/* 2^x for x far below 128: minimax polynomials of the fraction, to 6e-8, or to 3e-6 where bfloat16 follows anyway. */
INLINE vec exp2_of(vec x, const int exact) {
#if WIDE
    const vec r = (vec)_mm512_reduce_ps((__m512)x, 9); /* x - floor(x) */
#else
    x = larger(fill(-200.0f), x);
    const vec shifted = (x - 0.5f) + 12582912.0f; /* floor, or one less for a whole number: r is in [0, 1] */
    const vec r = x - (shifted - 12582912.0f);
#endif
    vec y;
    if (exact) {
        y = fill(2.1702251e-4f);
        y = y * r + 1.24396884e-3f;
        y = y * r + 9.6788406e-3f;
        y = y * r + 5.5483341e-2f;
        y = y * r + 2.4022983e-1f;
        y = y * r + 6.9314700e-1f;
        y = y * r + 1.0f;
    } else {
        y = fill(1.3534167e-2f);
        y = y * r + 5.2011460e-2f;
        y = y * r + 2.4144275e-1f;
        y = y * r + 6.9300383e-1f;
        y = y * r + 1.0000026f;
    }
#if WIDE
    return (vec)_mm512_scalef_ps((__m512)y, (__m512)x); /* by 2^floor(x) */
#else
    ints whole = (ints)shifted - 0x4b400000;
    return choose(whole < -126, (vec){0}, (vec)((ints)y + (whole << 23)));
#endif
}

/* log of a positive normal number: Cephes' polynomial. */
INLINE vec log_of(vec x) {
    ints exponent = (ints)((bits)x >> 23) - 126;
    vec m = (vec)(((ints)x & 0x007fffff) | 0x3f000000); /* in [1/2, 1) */
    ints small = m < 0.707106781186547524f;
    exponent += small; /* true is -1 */
    m = choose(small, m + m, m) - 1.0f;
    vec e = __builtin_convertvector(exponent, vec), z = m * m;
    vec y = fill(7.0376836292e-2f);
    y = y * m - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z + e * -2.12194440e-4f - 0.5f * z;
    return choose(x != x, x, m + y + e * 0.693359375f);
}

/* tanh: Cephes' polynomial near 0, where 1 - 2 / (1 + exp 2x) would lose digits. */
INLINE vec tanh_of(vec x) {
    vec z = x * x;
    vec y = fill(-5.70498872745e-3f);
    y = y * z + 2.06390887954e-2f;
    y = y * z - 5.37397155531e-2f;
    y = y * z + 1.33314422036e-1f;
    y = y * z - 3.33332819422e-1f;
    y = y * z * x + x;
    vec far = 1.0f - 2.0f / (1.0f + exp_of(x + x));
    return choose(z < 0.390625f, y, far);
}
#endif
