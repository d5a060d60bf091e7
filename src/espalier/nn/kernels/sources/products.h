/* Small matrix products from packed operands, the inner loop of attention: C (R, N vectors) = or += A B over `steps`.
 *
 * Included with UNIT_PAIRS 1, a step is a pair of bfloat16 and a unit 32 bits holding both, or 0, a step is one float.
 * A gives one unit per row and step and is broadcast; B gives N vectors of units per step. Accumulators stay in
 * registers: at most ROWS x VECTORS of them.
 */
#define NAMED_(name, suffix) name##_##suffix
#define NAMED2(name, suffix) NAMED_(name, suffix)
#define NAMED(name) NAMED2(name, SUFFIX)

#undef ROWS
#undef VECTORS
#define ROWS 6
#if WIDE || defined(__aarch64__)
#define VECTORS 4
#else
#define VECTORS 2
#endif
#undef SIDE
#define SIDE (LANES > ROWS ? LANES : 2 * LANES) /* ROWS up to whole vectors */
#define STRIP 4 /* rows of a product with A read by columns; divides LANES */

INLINE vec NAMED(dot)(vec sum, uint32_t a, vec b) {
#if UNIT_PAIRS
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
#else
    union { uint32_t unit; float number; } one = {a};
    return sum + one.number * b;
#endif
}

/* a: unit of row r and step s at a[r * row + s * step]. b: vector n of step s at b + s * b_step + n * b_vector (units).
 * c: float rows at c + r * c_row. */
INLINE void NAMED(multiply)(const int R, const int N, long steps, const uint32_t *a, long row, long step,
                            const uint32_t *b, long b_step, long b_vector, float *c, long c_row, int add) {
    vec sum[ROWS][VECTORS];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++)
            sum[r][n] = (vec){0};
    for (long s = 0; s < steps; s++) {
        vec part[VECTORS];
        UNROLL for (int n = 0; n < N; n++) part[n] = (vec)*(const bits_anywhere *)(b + n * b_vector);
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int n = 0; n < N; n++) sum[r][n] = NAMED(dot)(sum[r][n], a[r * row], part[n]);
        a += step;
        b += b_step;
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) {
            float *to = c + r * c_row + n * LANES;
            STORE(to, add ? LOAD(to) + sum[r][n] : sum[r][n]);
        }
}

#define CASE(R, N, row, step) \
    case (R) * 8 + (N): NAMED(multiply)(R, N, steps, a, row, step, b, b_step, b_vector, c, c_row, add); return;
#if VECTORS == 4
#define CASES(R, row, step) CASE(R, 1, row, step) CASE(R, 2, row, step) CASE(R, 3, row, step) CASE(R, 4, row, step)
#else
#define CASES(R, row, step) CASE(R, 1, row, step) CASE(R, 2, row, step)
#endif

/* A row by row: its units lie side by side along the steps. */
static __attribute__((noinline)) void NAMED(by_rows)(int R, int N, long steps, const uint32_t *a, long row,
        const uint32_t *b, long b_step, long b_vector, float *c, long c_row, int add) {
    switch (R * 8 + N) {
        CASES(1, row, 1) CASES(2, row, 1) CASES(3, row, 1) CASES(4, row, 1) CASES(5, row, 1) CASES(6, row, 1)
    }
}
/* A by columns: the units of a step lie side by side. R is STRIP. */
static __attribute__((noinline)) void NAMED(by_columns)(int N, long steps, const uint32_t *a, long step,
        const uint32_t *b, long b_step, long b_vector, float *c, long c_row, int add) {
    switch (STRIP * 8 + N) {
        CASES(STRIP, 1, step)
    }
}
#undef CASE
#undef CASES

/* How many vectors of `left` to take next: as even shares as VECTORS allows. */
static inline int NAMED(share)(int left) {
    int shares = (left + VECTORS - 1) / VECTORS;
    return (left + shares - 1) / shares;
}

/* All `vectors` of B in as many calls as that takes. */
static void NAMED(product)(int R, int vectors, long steps, const uint32_t *a, long row, const uint32_t *b, long b_step,
                           long b_vector, float *c, long c_row) {
    while (vectors > 0) {
        int n = NAMED(share)(vectors);
        NAMED(by_rows)(R, n, steps, a, row, b, b_step, b_vector, c, c_row, 0);
        b += n * b_vector;
        c += n * LANES;
        vectors -= n;
    }
}
/* Sums of floats are taken in parts, which keeps their rounding small. */
static void NAMED(add_strip)(int vectors, long steps, const uint32_t *a, long step, const uint32_t *b, long b_step,
                             float *c, long c_row) {
    const long part = UNIT_PAIRS ? steps : 64;
    while (vectors > 0) {
        int n = NAMED(share)(vectors);
        for (long s = 0; s < steps; s += part)
            NAMED(by_columns)(n, steps - s < part ? steps - s : part, a + s * step, step, b + s * b_step, b_step, LANES,
                              c, c_row, 1);
        b += n * LANES;
        c += n * LANES;
        vectors -= n;
    }
}
