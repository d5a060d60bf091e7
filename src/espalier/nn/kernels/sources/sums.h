/* Sums across vectors, several at once, always in one order; and the sizes of a tile that fit the registers. */
#ifndef ESPALIER_SUMS_H
#define ESPALIER_SUMS_H
#include "vectors.h"

#if WIDE
#define WEIGHTS 4       /* rows of w to a tile */
#define TOGETHER_ROWS 6 /* rows of x to a tile */
#elif defined(__aarch64__)
#define WEIGHTS 4
#define TOGETHER_ROWS 4
#else
#define WEIGHTS 4
#define TOGETHER_ROWS 2
#endif

#if WIDE
/* The sums of four vectors. */
INLINE __m128 four_sums(vec a, vec b, vec c, vec d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b), _mm512_unpackhi_ps((__m512)a, (__m512)b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps((__m512)c, (__m512)d), _mm512_unpackhi_ps((__m512)c, (__m512)d));
    const __m512d low = _mm512_unpacklo_pd((__m512d)ab, (__m512d)cd), high = _mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
    const __m512 all = _mm512_add_ps((__m512)low, (__m512)high); /* a, b, c, d of each quarter */
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#endif

/* to[n] = the sum of x[n], n < N; N is 1 or a multiple of 4. */
INLINE void sums_to(const int N, const vec *x, float *to) {
#if WIDE
    if (N == 1) {
        const vec none = {0};
        to[0] = _mm_cvtss_f32(four_sums(x[0], none, none, none));
        return;
    }
    UNROLL for (int n = 0; n < N; n += 4) _mm_storeu_ps(to + n, four_sums(x[n], x[n + 1], x[n + 2], x[n + 3]));
#else
    UNROLL for (int n = 0; n < N; n++) to[n] = sum_of(x[n]);
#endif
}
#endif
