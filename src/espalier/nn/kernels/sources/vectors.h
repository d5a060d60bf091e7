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

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define LANES 16
#define WIDE 1
#elif defined(__AVX__)
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

INLINE float sum_of(vec x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}
INLINE float largest_of(vec x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* --- bfloat16 */

INLINE vec widen(halves x) { return (vec)(__builtin_convertvector(x, bits) << 16); }

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
    return __builtin_convertvector(narrow(low), bits) | (__builtin_convertvector(narrow(high), bits) << 16);
}

/* One name for both types, chosen by the pointer. */
INLINE vec load_float(const float *p) { return *(const vec_anywhere *)p; }
INLINE vec load_half(const half *p) { return widen(*(const halves_anywhere *)p); }
INLINE void store_float(float *p, vec x) { *(vec_anywhere *)p = x; }
INLINE void store_half(half *p, vec x) { *(halves_anywhere *)p = narrow(x); }
#define LOAD(p) _Generic((p), const float *: load_float, float *: load_float, const half *: load_half, half *: load_half)(p)
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
