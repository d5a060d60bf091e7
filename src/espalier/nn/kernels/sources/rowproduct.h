/* Products of a few rows with a matrix whose rows lie as a model's files hold them: y (t, o) = x (t, i) w (o, i)^T.
 *
 * Included with NUMBER (the type of x and w), UNIT_PAIRS and SUFFIX as attention.h. y is float. Every number of y is
 * one sum along i in one order, however many rows are computed together: a row's result does not depend on the others.
 * Nothing is packed: with few rows the time goes into reading w, once.
 */
#define NAMED_(name, suffix) name##_##suffix
#define NAMED2(name, suffix) NAMED_(name, suffix)
#define NAMED(name) NAMED2(name, SUFFIX)

#undef STRIDE
#if UNIT_PAIRS
#define STRIDE (2 * LANES) /* numbers to a step along i */
#else
#define STRIDE LANES
#endif

/* sum + x w over STRIDE numbers, of which `count` are there. */
INLINE vec NAMED(fold)(vec sum, const NUMBER *x, const NUMBER *w) {
#if UNIT_PAIRS
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(w));
#else
    return sum + LOAD(x) * LOAD(w);
#endif
}

INLINE void NAMED(tile)(const int R, const int N, const NUMBER *x, long x_row, const NUMBER *w, long w_row, long i,
                        float *y, long y_row, const int ahead) {
    vec sum[TOGETHER_ROWS][WEIGHTS];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++)
            sum[r][n] = (vec){0};
    const long whole = i / STRIDE * STRIDE;
    for (long k = 0; k < whole; k += STRIDE) {
        if (ahead) /* what comes next lies right behind: reading it on the way keeps memory busy */
            UNROLL for (int n = 0; n < N; n++) __builtin_prefetch(w + (N + n) * w_row + k, 0, 2);
        UNROLL for (int n = 0; n < N; n++)
            UNROLL for (int r = 0; r < R; r++)
                sum[r][n] = NAMED(fold)(sum[r][n], x + r * x_row + k, w + n * w_row + k);
    }
    if (whole < i) {
        NUMBER rest_x[STRIDE], rest_w[STRIDE];
        memset(rest_x, 0, sizeof rest_x);
        memset(rest_w, 0, sizeof rest_w);
        UNROLL for (int n = 0; n < N; n++) {
            memcpy(rest_w, w + n * w_row + whole, (size_t)(i - whole) * sizeof(NUMBER));
            UNROLL for (int r = 0; r < R; r++) {
                memcpy(rest_x, x + r * x_row + whole, (size_t)(i - whole) * sizeof(NUMBER));
                sum[r][n] = NAMED(fold)(sum[r][n], rest_x, rest_w);
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++) sums_to(N, sum[r], y + r * y_row);
}

/* R rows with columns `from` .. `to` of y. */
INLINE void NAMED(band)(const int R, const NUMBER *x, long x_row, const NUMBER *w, long w_row, long i, long from, long to,
                        float *y, long y_row, int ahead) {
    long o = from;
    if (ahead)
        for (; o + WEIGHTS <= to; o += WEIGHTS)
            NAMED(tile)(R, WEIGHTS, x, x_row, w + o * w_row, w_row, i, y + o, y_row, 1);
    for (; o + WEIGHTS <= to; o += WEIGHTS)
        NAMED(tile)(R, WEIGHTS, x, x_row, w + o * w_row, w_row, i, y + o, y_row, 0);
    for (; o < to; o++) NAMED(tile)(R, 1, x, x_row, w + o * w_row, w_row, i, y + o, y_row, 0);
}

static __attribute__((noinline)) void NAMED(band_of)(int rows, const NUMBER *x, long x_row, const NUMBER *w, long w_row,
        long i, long from, long to, float *y, long y_row, int ahead) {
    switch (rows) {
        case 1: NAMED(band)(1, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
        case 2: NAMED(band)(2, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
#if TOGETHER_ROWS >= 4
        case 3: NAMED(band)(3, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
        case 4: NAMED(band)(4, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
#endif
#if TOGETHER_ROWS >= 6
        case 5: NAMED(band)(5, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
        case 6: NAMED(band)(6, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
#endif
    }
}

/* Rows of w that stay in the second cache while all of x goes by, six rows at a time from the first. */
#define PANEL_BYTES (256 * 1024)

/* Columns `from` .. `to` of y, all rows. */
static void NAMED(rows_product)(long rows, const NUMBER *x, long x_row, const NUMBER *w, long w_row, long i, long from,
                                long to, float *y, long y_row) {
    long panel = PANEL_BYTES / (i * (long)sizeof(NUMBER)) / WEIGHTS * WEIGHTS;
    if (panel < WEIGHTS) panel = WEIGHTS;
    if (rows <= TOGETHER_ROWS) panel = to - from;
    for (long o = from; o < to; o += panel) {
        const long end = o + panel < to ? o + panel : to;
        for (long r = 0; r < rows; r += TOGETHER_ROWS) {
            const int some = rows - r < TOGETHER_ROWS ? (int)(rows - r) : TOGETHER_ROWS;
            NAMED(band_of)(some, x + r * x_row, x_row, w, w_row, i, o, end, y + r * y_row, y_row, r == 0);
        }
    }
}
