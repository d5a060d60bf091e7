/* Attention over segments, forward and backward, for one type of numbers: see attention.c for what is computed.
 *
 * Included with NUMBER (the type in memory), UNIT_PAIRS (whether products take pairs of bfloat16) and SUFFIX. Layouts
 * of packed operands, in units of 32 bits (a pair of bfloat16, or a float; SPAN numbers to a unit):
 *   across  [block of LANES rows][width / SPAN][LANES]   for products along the width: scores
 *   along   [rows / SPAN][width]                         for products along the rows: outputs and gradients
 */
#include "products.h"

#if UNIT_PAIRS
#define SPAN 2
#define PART half /* of a unit */
#else
#define SPAN 1
#define PART float
#endif

/* --- rows in and out */

static inline const NUMBER *NAMED(place)(const void *base, struct stride stride, struct row row) {
    return (const NUMBER *)base + row.at * stride.row + row.head * stride.head;
}

/* A row of numbers as floats; turned by the angles of its position where `turn` is asked for. */
static inline void NAMED(read_row)(const struct attention *all, const NUMBER *from, float *to, int turn, long at) {
    const long n = turn ? all->turning : 0, whole = n % LANES == 0 ? n : 0;
    const float *cos = all->cos + at * n, *sin = all->sin + at * n;
    for (long i = 0; i < whole; i += LANES) {
        const vec a = LOAD(from + i), b = LOAD(from + i + n), c = LOAD(cos + i), s = LOAD(sin + i);
        STORE(to + i, a * c - b * s);
        STORE(to + i + n, b * c + a * s);
    }
    for (long i = 2 * whole; i < all->width; i += LANES) STORE(to + i, LOAD(from + i));
    if (whole < n) turn_row(to, cos, sin, n, 1.0f);
}

/* The other way round: a gradient is turned back. Uses `from` up. */
static inline void NAMED(write_row)(const struct attention *all, float *from, const NUMBER *place, int turn, long at) {
    NUMBER *to = (NUMBER *)place;
    const long n = all->turning;
    if (turn && n > 0) turn_row(from, all->cos + at * n, all->sin + at * n, n, -1.0f);
    for (long i = 0; i < all->width; i += LANES) STORE(to + i, LOAD(from + i));
}

/* Units of one row side by side: the A of a product along the width. */
static inline void NAMED(pack_row)(const float *row, uint32_t *to, long width) {
    for (long i = 0; i < width; i += LANES) STORE((PART *)to + i, LOAD(row + i));
}

/* Rows 0 and 1 (with SPAN 1 row 0 alone) as one step of `along`. */
static inline void NAMED(pack_along)(const float *first, const float *second, uint32_t *to, long width) {
#if UNIT_PAIRS
    for (long i = 0; i < width; i += LANES) *(bits_anywhere *)(to + i) = pair(LOAD(first + i), LOAD(second + i));
#else
    (void)second;
    memcpy(to, first, (size_t)width * sizeof(float));
#endif
}

/* The keys or values of a unit, prefix first, zero up to a whole block; into either layout that is not NULL. */
static void NAMED(pack_keys)(const struct attention *all, const void *base, struct stride stride,
                             const struct work *work, int turn, uint32_t *across, uint32_t *along, struct room *room) {
    const long width = all->width, units = width / SPAN;
    for (long block = 0; block < work->blocks; block++) {
        for (long i = 0; i < LANES; i++) {
            const long key = block * LANES + i;
            float *floats = room->floats + i * width;
            if (key >= work->keys) {
                memset(floats, 0, (size_t)width * sizeof(float));
                continue;
            }
            const struct row row = {key_at(work, key), work->key_head};
            const struct row later = {key_at(work, key + LANES), work->key_head};
            if (key + LANES < work->keys) ask(NAMED(place)(base, stride, later), width * (long)sizeof(NUMBER));
            NAMED(read_row)(all, NAMED(place)(base, stride, row), floats, turn, row.at);
        }
        if (across != NULL) {
            for (long i = 0; i < LANES; i++) NAMED(pack_row)(room->floats + i * width, room->units + i * units, width);
            for (long i = 0; i < units; i += LANES)
                transpose(room->units + i, units, across + (block * units + i) * LANES, units - i);
        }
        for (long i = 0; along != NULL && i < LANES; i += SPAN) {
            const float *first = room->floats + i * width;
            NAMED(pack_along)(first, first + (SPAN - 1) * width, along + (block * LANES + i) / SPAN * width, width);
        }
    }
}

/* --- forward */

/* exp(score - largest) of rows of scores, `n` apart, as units along the keys; gives each row's largest and sum. Several
 * rows at once keep the CPU busy where one waits for its own last step. */
INLINE void NAMED(soften)(const struct attention *all, const int rows, float *scores, long n, uint32_t *to, float *top,
                          float *total) {
    vec most[TOGETHER], sum[TOGETHER];
    float steep = all->scale * LOG2_E, peak[TOGETHER];
    if (all->softcap > 0) {
        for (long i = 0; i < rows * n; i += LANES) {
            vec slope;
            STORE(scores + i, bend(LOAD(scores + i), all, &slope));
        }
        steep = LOG2_E;
    }
    UNROLL for (int r = 0; r < rows; r++) most[r] = fill(HIDDEN);
    for (long i = 0; i < n; i += LANES)
        UNROLL for (int r = 0; r < rows; r++) most[r] = larger(most[r], LOAD(scores + r * n + i));
    UNROLL for (int r = 0; r < rows; r++) {
        peak[r] = largest_of(most[r]) * steep;
        sum[r] = (vec){0};
    }
    for (long i = 0; i < n; i += LANES)
        UNROLL for (int r = 0; r < rows; r++) {
            const vec p = exp2_of(LOAD(scores + r * n + i) * steep - peak[r], !UNIT_PAIRS);
            sum[r] += p;
            STORE((PART *)(to + r * (n / SPAN)) + i, p);
        }
    UNROLL for (int r = 0; r < rows; r++) {
        top[r] = peak[r] * LN_2;
        total[r] = sum_of(sum[r]);
    }
}

static void NAMED(forward)(const struct attention *all, const struct work *work, struct room *room) {
    const long width = all->width, units = width / SPAN, bytes = width * (long)sizeof(NUMBER);
    NAMED(pack_keys)(all, all->k, all->k_stride, work, 1, room->keys_across, NULL, room);
    NAMED(pack_keys)(all, all->v, all->v_stride, work, 0, NULL, room->values_along, room);
    for (long first = 0; first < work->rows; first += ROWS) {
        const int R = (int)(work->rows - first < ROWS ? work->rows - first : ROWS);
        const struct reach reach = reach_of(all, work, first, first + R - 1);
        const long n = (reach.last_block - reach.first_block) * LANES, from = reach.first_block * LANES;
        struct row row[ROWS];
        for (int r = 0; r < R; r++) {
            row[r] = row_of(work, first + r);
            if (first + r + AHEAD < work->rows)
                ask(NAMED(place)(all->q, all->q_stride, row_of(work, first + r + AHEAD)), bytes);
            NAMED(read_row)(all, NAMED(place)(all->q, all->q_stride, row[r]), room->floats, 1, row[r].at);
            NAMED(pack_row)(room->floats, room->units + r * units, width);
        }
        NAMED(product)(R, (int)(n / LANES), units, room->units, units, room->keys_across + from * units, LANES,
                       LANES * units, room->scores, n);
        for (int r = 0; r < R; r++) hide(all, work, row[r], reach, room->scores + r * n);
        float top[SIDE] = {0}, total[SIDE] = {0};
        for (int r = 0; r < R; r += TOGETHER) {
            uint32_t *to = room->weights + r * (n / SPAN);
            if (R - r >= TOGETHER) NAMED(soften)(all, TOGETHER, room->scores + r * n, n, to, top + r, total + r);
            else for (int one = r; one < R; one++, to += n / SPAN)
                NAMED(soften)(all, 1, room->scores + one * n, n, to, top + one, total + one);
        }
        for (int r = 0; r < R; r += LANES) STORE(top + r, LOAD(top + r) + log_of(LOAD(total + r)));
        NAMED(product)(R, (int)(width / LANES), n / SPAN, room->weights, n / SPAN,
                       room->values_along + from / SPAN * width, width, LANES, room->scores, width);
        for (int r = 0; r < R; r++) {
            NUMBER *out = (NUMBER *)NAMED(place)(all->out, dense(all), row[r]);
            const float inverse = 1.0f / total[r];
            for (long i = 0; i < width; i += LANES) STORE(out + i, LOAD(room->scores + r * width + i) * inverse);
            all->lse[row[r].at * all->heads + row[r].head] = top[r];
        }
    }
}

/* --- backward */

/* Weights and score gradients of SPAN rows, of which `rows` are there, from their scores and their dout v^T. The
 * gradients go row by row into `slopes`, both by key (a unit per key) into `slopes_by_key` and `weights_by_key`. */
static inline void NAMED(slope_rows)(const struct attention *all, const float *scores, const float *dp, long n,
                                     int rows, const float *lse, const float *delta, uint32_t *slopes,
                                     uint32_t *slopes_by_key, uint32_t *weights_by_key) {
    const float steep = (all->softcap > 0 ? 1.0f : all->scale) * LOG2_E;
    float peak[SPAN], shift[SPAN];
    for (int r = 0; r < SPAN; r++) {
        peak[r] = r < rows ? lse[r] * LOG2_E : 0;
        shift[r] = r < rows ? delta[r] : 0;
    }
    for (long i = 0; i < n; i += LANES) {
        vec p[SPAN], ds[SPAN];
        UNROLL for (int r = 0; r < SPAN; r++) {
            if (r >= rows) {
                p[r] = ds[r] = (vec){0};
                continue;
            }
            vec score = LOAD(scores + r * n + i), slope = fill(all->scale);
            if (all->softcap > 0) score = bend(score, all, &slope);
            p[r] = exp2_of(score * steep - peak[r], !UNIT_PAIRS);
            ds[r] = p[r] * (LOAD(dp + r * n + i) - shift[r]) * slope;
            STORE((PART *)(slopes + r * (n / SPAN)) + i, ds[r]);
        }
#if UNIT_PAIRS
        *(bits_anywhere *)(slopes_by_key + i) = pair(ds[0], ds[1]);
        *(bits_anywhere *)(weights_by_key + i) = pair(p[0], p[1]);
#else
        *(bits_anywhere *)(slopes_by_key + i) = (bits)ds[0];
        *(bits_anywhere *)(weights_by_key + i) = (bits)p[0];
#endif
    }
}

/* Queries and output gradients of some rows, packed both ways, and delta = dout . out of each. */
static void NAMED(pack_queries)(const struct attention *all, const struct work *work, long first, long rows,
                                struct room *room) {
    const long width = all->width, units = width / SPAN, bytes = width * (long)sizeof(NUMBER);
    float *query = room->floats, *given = room->floats + 2 * width;
    for (long r = 0; r < rows; r++) {
        const struct row row = row_of(work, first + r), later = row_of(work, first + r + AHEAD);
        const long odd = r % SPAN;
        const NUMBER *out = NAMED(place)(all->out, dense(all), row);
        if (first + r + AHEAD < work->rows) {
            ask(NAMED(place)(all->q, all->q_stride, later), bytes);
            ask(NAMED(place)(all->dout, all->dout_stride, later), bytes);
            ask(NAMED(place)(all->out, dense(all), later), bytes);
        }
        NAMED(read_row)(all, NAMED(place)(all->q, all->q_stride, row), query + odd * width, 1, row.at);
        NAMED(read_row)(all, NAMED(place)(all->dout, all->dout_stride, row), given + odd * width, 0, row.at);
        NAMED(pack_row)(query + odd * width, room->queries + r * units, width);
        NAMED(pack_row)(given + odd * width, room->given + r * units, width);
        vec sum = {0};
        for (long i = 0; i < width; i += LANES) sum += LOAD(given + odd * width + i) * LOAD(out + i);
        room->delta[r] = sum_of(sum);
        room->lse[r] = all->lse[row.at * all->heads + row.head];
        if (odd < SPAN - 1 && r < rows - 1) continue;
        if (odd < SPAN - 1) {
            memset(query + width, 0, (size_t)width * sizeof(float));
            memset(given + width, 0, (size_t)width * sizeof(float));
        }
        NAMED(pack_along)(query, query + width, room->queries_along + r / SPAN * width, width);
        NAMED(pack_along)(given, given + width, room->given_along + r / SPAN * width, width);
    }
}

/* The score gradients of a batch of rows, by row and by key, and its queries' gradients. */
static void NAMED(pull_queries)(const struct attention *all, const struct work *work, long first, long rows, long keys,
                                struct room *room) {
    const long width = all->width, units = width / SPAN;
    for (long r = 0; r < rows; r += ROWS) {
        const int R = (int)(rows - r < ROWS ? rows - r : ROWS);
        const struct reach reach = reach_of(all, work, first + r, first + r + R - 1);
        const long n = (reach.last_block - reach.first_block) * LANES, from = reach.first_block * LANES;
        NAMED(product)(R, (int)(n / LANES), units, room->queries + r * units, units, room->keys_across + from * units,
                       LANES, LANES * units, room->scores, n);
        NAMED(product)(R, (int)(n / LANES), units, room->given + r * units, units, room->values_across + from * units,
                       LANES, LANES * units, room->scores + ROWS * n, n);
        for (int i = 0; i < R; i++) hide(all, work, row_of(work, first + r + i), reach, room->scores + i * n);
        for (int i = 0; i < R; i += SPAN) {
            const long at = (r + i) / SPAN * keys + from;
            NAMED(slope_rows)(all, room->scores + i * n, room->scores + (ROWS + i) * n, n, R - i, room->lse + r + i,
                              room->delta + r + i, room->weights + i * (n / SPAN), room->slopes_by_key + at,
                              room->weights_by_key + at);
        }
        NAMED(product)(R, (int)(width / LANES), n / SPAN, room->weights, n / SPAN,
                       room->keys_along + from / SPAN * width, width, LANES, room->scores, width);
        for (int i = 0; i < R; i++) {
            const struct row row = row_of(work, first + r + i);
            NAMED(write_row)(all, room->scores + i * width, NAMED(place)(all->dq, all->dq_stride, row), 1, row.at);
        }
    }
}

/* Add what a batch of rows gives to the gradients of the keys and values it sees. */
static void NAMED(pull_keys)(const struct attention *all, const struct work *work, long first, long rows,
                             struct reach reach, struct room *room) {
    const long width = all->width, keys = reach.last_block * LANES;
    const int vectors = (int)(width / LANES);
    for (long key = reach.first_block * LANES; key < keys; key += STRIP) {
        /* the rows that may see a key of the strip */
        long low = (key - work->before) * work->group - first, high = rows;
        const long last = (key + STRIP - 1 + all->window - work->before) * work->group - first;
        if (all->window > 0 && last < high) high = last;
        if (low < 0) low = 0;
        if (high <= low) continue;
        const long step = low / SPAN, steps = (high + SPAN - 1) / SPAN - step;
        NAMED(add_strip)(vectors, steps, room->weights_by_key + step * keys + key, keys,
                         room->given_along + step * width, width, room->value_gradients + key * width, width);
        NAMED(add_strip)(vectors, steps, room->slopes_by_key + step * keys + key, keys,
                         room->queries_along + step * width, width, room->key_gradients + key * width, width);
    }
}

static void NAMED(write_keys)(const struct attention *all, struct row row, float *dk, float *dv) {
    NAMED(write_row)(all, dk, NAMED(place)(all->dk, all->dk_stride, row), 1, row.at);
    NAMED(write_row)(all, dv, NAMED(place)(all->dv, all->dv_stride, row), 0, row.at);
}

static void NAMED(backward)(const struct attention *all, const struct work *work, struct room *room) {
    const long width = all->width, batch = batch_rows(work->blocks * LANES);
    const size_t bytes = (size_t)(work->blocks * LANES * width) * sizeof(float);
    NAMED(pack_keys)(all, all->k, all->k_stride, work, 1, room->keys_across, room->keys_along, room);
    NAMED(pack_keys)(all, all->v, all->v_stride, work, 0, room->values_across, NULL, room);
    memset(room->key_gradients, 0, bytes);
    memset(room->value_gradients, 0, bytes);
    for (long first = 0; first < work->rows; first += batch) {
        const long rows = work->rows - first < batch ? work->rows - first : batch;
        const struct reach reach = reach_of(all, work, first, first + rows - 1);
        NAMED(pack_queries)(all, work, first, rows, room);
        NAMED(pull_queries)(all, work, first, rows, reach.last_block * LANES, room);
        NAMED(pull_keys)(all, work, first, rows, reach, room);
    }
    for (long key = 0; key < work->keys; key++) {
        const struct row row = {key_at(work, key), work->key_head};
        float *dk = room->key_gradients + key * width, *dv = room->value_gradients + key * width;
        if (room->shared == NULL) {
            NAMED(write_keys)(all, row, dk, dv);
            continue;
        }
        float *sums = room->shared + 2 * row.at * width; /* a prefix's rows gather from several segments */
        for (long i = 0; i < width; i += LANES) {
            STORE(sums + i, LOAD(sums + i) + LOAD(dk + i));
            STORE(sums + width + i, LOAD(sums + width + i) + LOAD(dv + i));
        }
    }
}

static void NAMED(write_shared)(const struct attention *all, long key_head, struct room *room) {
    for (long at = 0; at < all->tokens; at++) {
        float *sums = room->shared + 2 * at * all->width;
        NAMED(write_keys)(all, (struct row){at, key_head}, sums, sums + all->width);
    }
}

#undef SPAN
#undef PART
