/* Products of a few rows with a matrix whose rows lie as a model's files hold them: y (t, o) = x (t, i) w (o, i)^T.
 *
 * Included with NUMBER (the type of x) and UNIT_PAIRS as attention.h; with WEIGHT, the type of w: NUMBER, or codes of
 * eight bits, which become numbers on their way into a sum; and with OWN, which makes names for the two. y is float.
 * Every number of y is one sum along i in one order, however many rows are computed together: a row's result does not
 * depend on the others. Nothing is packed: with few rows the time goes into reading w, once.
 */
#undef STRIDE
#undef UNIT
#undef READ
#if UNIT_PAIRS
#define STRIDE (2 * LANES) /* numbers to a step along i */
#define UNIT bits
#define READ(w) LOAD_PAIRS(w)
#else
#define STRIDE LANES
#define UNIT vec
#define READ(w) LOAD(w)
#endif

/* sum + x w over STRIDE numbers. */
INLINE vec OWN(fold)(vec sum, const NUMBER *x, UNIT w) {
#if UNIT_PAIRS
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(x), (__m512bh)w);
#else
    return sum + LOAD(x) * w;
#endif
}

/* What is asked of memory while a tile is computed: of codes, which are short, the tile after a few others. */
#undef TILES_AHEAD
#define TILES_AHEAD (sizeof(WEIGHT) == 1 ? 6 : 1)

INLINE void OWN(tile)(const int R, const int N, const NUMBER *x, long x_row, const WEIGHT *w, long w_row, long i,
                        float *y, long y_row, const int ahead) {
    vec sum[TOGETHER_ROWS][WEIGHTS];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++)
            sum[r][n] = (vec){0};
    const long whole = i / STRIDE * STRIDE;
    for (long k = 0; k < whole; k += STRIDE) {
        if (ahead) /* what comes next lies right behind: reading it on the way keeps memory busy */
            UNROLL for (int n = 0; n < N; n++) __builtin_prefetch(w + (TILES_AHEAD * N + n) * w_row + k, 0, 2);
        UNROLL for (int n = 0; n < N; n++) {
            const UNIT part = READ(w + n * w_row + k);
            UNROLL for (int r = 0; r < R; r++) sum[r][n] = OWN(fold)(sum[r][n], x + r * x_row + k, part);
        }
    }
    if (whole < i) {
        NUMBER rest_x[STRIDE];
        WEIGHT rest_w[STRIDE];
        memset(rest_x, 0, sizeof rest_x);
        memset(rest_w, 0, sizeof rest_w);
        UNROLL for (int n = 0; n < N; n++) {
            memcpy(rest_w, w + n * w_row + whole, (size_t)(i - whole) * sizeof(WEIGHT));
            const UNIT part = READ((const WEIGHT *)rest_w);
            UNROLL for (int r = 0; r < R; r++) {
                memcpy(rest_x, x + r * x_row + whole, (size_t)(i - whole) * sizeof(NUMBER));
                sum[r][n] = OWN(fold)(sum[r][n], rest_x, part);
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++) sums_to(N, sum[r], y + r * y_row);
}

/* R rows with columns `from` .. `to` of y. */
INLINE void OWN(band)(const int R, const NUMBER *x, long x_row, const WEIGHT *w, long w_row, long i, long from, long to,
                        float *y, long y_row, int ahead) {
    long o = from;
    if (ahead)
        for (; o + WEIGHTS <= to; o += WEIGHTS)
            OWN(tile)(R, WEIGHTS, x, x_row, w + o * w_row, w_row, i, y + o, y_row, 1);
    for (; o + WEIGHTS <= to; o += WEIGHTS)
        OWN(tile)(R, WEIGHTS, x, x_row, w + o * w_row, w_row, i, y + o, y_row, 0);
    for (; o < to; o++) OWN(tile)(R, 1, x, x_row, w + o * w_row, w_row, i, y + o, y_row, 0);
}

static __attribute__((noinline)) void OWN(band_of)(int rows, const NUMBER *x, long x_row, const WEIGHT *w, long w_row,
        long i, long from, long to, float *y, long y_row, int ahead) {
    switch (rows) {
        case 1: OWN(band)(1, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
        case 2: OWN(band)(2, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
#if TOGETHER_ROWS >= 4
        case 3: OWN(band)(3, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
        case 4: OWN(band)(4, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
#endif
#if TOGETHER_ROWS >= 6
        case 5: OWN(band)(5, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
        case 6: OWN(band)(6, x, x_row, w, w_row, i, from, to, y, y_row, ahead); return;
#endif
    }
}

/* Rows of w that stay in the second cache while all of x goes by, six rows at a time from the first. */
#undef PANEL_BYTES
#define PANEL_BYTES (256 * 1024)

/* Columns `from` .. `to` of y, all rows. */
static void OWN(rows_product)(long rows, const NUMBER *x, long x_row, const WEIGHT *w, long w_row, long i, long from,
                                long to, float *y, long y_row) {
    long panel = PANEL_BYTES / (i * (long)sizeof(WEIGHT)) / WEIGHTS * WEIGHTS;
    if (panel < WEIGHTS) panel = WEIGHTS;
    if (rows <= TOGETHER_ROWS) panel = to - from;
    for (long o = from; o < to; o += panel) {
        const long end = o + panel < to ? o + panel : to;
        for (long r = 0; r < rows; r += TOGETHER_ROWS) {
            const int some = rows - r < TOGETHER_ROWS ? (int)(rows - r) : TOGETHER_ROWS;
            OWN(band_of)(some, x + r * x_row, x_row, w, w_row, i, o, end, y + r * y_row, y_row, r == 0);
        }
    }
}
