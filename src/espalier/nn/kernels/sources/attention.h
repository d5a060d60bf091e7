/* Attention over segments, forward and backward, for one type of numbers: see attention.c for what is computed.
 *
 * Included with NUMBER (the type in memory), UNIT_PAIRS (whether products take pairs of bfloat16) and SUFFIX. Layouts of
 * packed operands, in units of 32 bits (a pair of bfloat16, or a float; SPAN numbers to a unit):
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

/* A row of numbers as floats, turned by the angles of its position; `side` is 1, or -1 to turn back. */
static inline void NAMED(read_row)(const NUMBER *from, float *to, long width, const struct attention *all, long at) {
    for (long i = 0; i < width; i += LANES) STORE(to + i, LOAD(from + i));
    if (all != NULL && all->cos != NULL) turn_row(to, all->cos + at * all->turning, all->sin + at * all->turning, all->turning, 1.0f);
}

static inline void NAMED(write_row)(float *from, NUMBER *to, long width, const struct attention *all, long at) {
    if (all != NULL && all->cos != NULL) turn_row(from, all->cos + at * all->turning, all->sin + at * all->turning, all->turning, -1.0f);
    for (long i = 0; i < width; i += LANES) STORE(to + i, LOAD((const float *)from + i));
}

/* Units of one row side by side: the A of a product along the width. */
static inline void NAMED(pack_row)(const float *row, uint32_t *to, long width) {
#if UNIT_PAIRS
    for (long i = 0; i < width; i += LANES) STORE((half *)to + i, LOAD(row + i));
#else
    memcpy(to, row, (size_t)width * sizeof(float));
#endif
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

/* LANES packed rows (units side by side, `units` each) as one block of `across`. */
static inline void NAMED(pack_across)(const uint32_t *rows, uint32_t *to, long units) {
    for (long i = 0; i < units; i += LANES) transpose(rows + i, units, to + i * LANES, units - i);
}

/* The keys or values of a segment, prefix first, zero up to a whole block; into either layout that is not NULL. */
static void NAMED(pack_keys)(const struct attention *all, const NUMBER *from, struct stride stride, const struct seen *seen,
                             int turned, uint32_t *across, uint32_t *along, float *floats, uint32_t *units) {
    const long width = all->width, per_row = width / SPAN;
    for (long block = 0; block < seen->blocks; block++) {
        for (long i = 0; i < LANES; i++) {
            long key = block * LANES + i;
            if (key < seen->keys) {
                long at = place_of(seen, key);
                NAMED(read_row)(from + at * stride.row, floats + i * width, width, turned ? all : NULL, at);
            } else {
                memset(floats + i * width, 0, (size_t)width * sizeof(float));
            }
        }
        if (across != NULL) {
            for (long i = 0; i < LANES; i++) NAMED(pack_row)(floats + i * width, units + i * per_row, width);
            NAMED(pack_across)(units, across + block * LANES * per_row, per_row);
        }
        if (along != NULL)
            for (long i = 0; i < LANES; i += SPAN)
                NAMED(pack_along)(floats + i * width, floats + (i + SPAN - 1) * width,
                                  along + (block * LANES + i) / SPAN * width, width);
    }
}

/* --- forward */

/* exp(score - largest) of one row of scores as units along the keys; gives the largest and the sum. */
static inline void NAMED(soften)(const struct attention *all, float *scores, long n, uint32_t *to, float *top, float *total) {
    float scale = all->scale;
    if (all->softcap > 0) {
        for (long i = 0; i < n; i += LANES) {
            vec slope;
            STORE(scores + i, bend(LOAD(scores + i), all, &slope));
        }
        scale = 1.0f;
    }
    vec most = fill(HIDDEN);
    for (long i = 0; i < n; i += LANES) most = larger(most, LOAD(scores + i));
    *top = largest_of(most) * scale;
    vec sum = {0};
    for (long i = 0; i < n; i += LANES) {
        vec p = exp_of(LOAD(scores + i) * scale - *top);
        sum += p;
        STORE((PART *)to + i, p);
    }
    *total = sum_of(sum);
}

static void NAMED(forward_head)(const struct attention *all, const struct seen *seen, long key_head, struct room *room) {
    const long group = all->heads / all->key_heads, width = all->width, per_row = width / SPAN;
    const NUMBER *q = (const NUMBER *)all->q + key_head * group * all->q_stride.head;
    NAMED(pack_keys)(all, (const NUMBER *)all->k + key_head * all->k_stride.head, all->k_stride, seen, 1, room->keys_across, NULL, room->floats, room->units);
    NAMED(pack_keys)(all, (const NUMBER *)all->v + key_head * all->v_stride.head, all->v_stride, seen, 0, NULL, room->values_along, room->floats, room->units);
    const long rows = (seen->end - seen->start) * group;
    for (long first = 0; first < rows; first += ROWS) {
        const int R = (int)(rows - first < ROWS ? rows - first : ROWS);
        const struct reach reach = reach_of(all, seen, first / group, (first + R - 1) / group);
        const long n = (reach.last_block - reach.first_block) * LANES;
        for (int r = 0; r < R; r++) {
            long at = seen->start + (first + r) / group, head = (first + r) % group;
            NAMED(read_row)(q + at * all->q_stride.row + head * all->q_stride.head, room->floats, width, all, at);
            NAMED(pack_row)(room->floats, room->units + r * per_row, width);
        }
        NAMED(product)(R, (int)(n / LANES), per_row, room->units, per_row,
                       room->keys_across + reach.first_block * LANES * per_row, LANES, LANES * per_row, room->scores, n);
        float top[SIDE], total[SIDE];
        for (int r = 0; r < R; r++) {
            hide(all, seen, (first + r) / group, reach, room->scores + r * n);
            NAMED(soften)(all, room->scores + r * n, n, room->weights + r * (n / SPAN), top + r, total + r);
        }
        for (int r = 0; r < R; r += LANES) STORE(top + r, LOAD(top + r) + log_of(LOAD(total + r)));
        NAMED(product)(R, (int)(width / LANES), n / SPAN, room->weights, n / SPAN,
                       room->values_along + reach.first_block * LANES / SPAN * width, width, LANES, room->scores, width);
        for (int r = 0; r < R; r++) {
            long at = seen->start + (first + r) / group, head = key_head * group + (first + r) % group;
            NUMBER *out = (NUMBER *)all->out + (at * all->heads + head) * width;
            const float inverse = 1.0f / total[r];
            for (long i = 0; i < width; i += LANES) STORE(out + i, LOAD(room->scores + r * width + i) * inverse);
            all->lse[at * all->heads + head] = top[r];
        }
    }
}

/* --- backward */

/* Two rows (with SPAN 1 one) of weights and of score gradients, made from scores and from dout v^T in the places given.
 * Row-major into `slopes` (per row), transposed into `slopes_by_key` and `weights_by_key` (a unit per key). */
static inline void NAMED(slope_rows)(const struct attention *all, const float *scores, const float *dp, long n, int rows,
                                     const float *lse, const float *delta, uint32_t *slopes, uint32_t *slopes_by_key,
                                     uint32_t *weights_by_key) {
    for (long i = 0; i < n; i += LANES) {
        vec p[SPAN], ds[SPAN];
        UNROLL for (int r = 0; r < SPAN; r++) {
            if (r >= rows) {
                p[r] = ds[r] = (vec){0};
                continue;
            }
            vec score = LOAD(scores + r * n + i), slope = fill(all->scale);
            score = all->softcap > 0 ? bend(score, all, &slope) : score * all->scale;
            p[r] = exp_of(score - lse[r]);
            ds[r] = p[r] * (LOAD(dp + r * n + i) - delta[r]) * slope;
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

/* Queries and output gradients of rows first .. first + rows, packed both ways, and delta = dout . out of each. */
static void NAMED(pack_queries)(const struct attention *all, const struct seen *seen, long key_head, long first, long rows,
                                struct room *room) {
    const long group = all->heads / all->key_heads, width = all->width, per_row = width / SPAN;
    float *query = room->floats, *given = room->floats + 2 * width;
    for (long r = 0; r < rows; r++) {
        const long at = seen->start + (first + r) / group, head = key_head * group + (first + r) % group, odd = r % SPAN;
        const NUMBER *dout = (const NUMBER *)all->dout + at * all->dout_stride.row + head * all->dout_stride.head;
        const NUMBER *out = (const NUMBER *)all->out + (at * all->heads + head) * width;
        NAMED(read_row)((const NUMBER *)all->q + at * all->q_stride.row + head * all->q_stride.head, query + odd * width, width, all, at);
        NAMED(read_row)(dout, given + odd * width, width, NULL, at);
        NAMED(pack_row)(query + odd * width, room->queries + r * per_row, width);
        NAMED(pack_row)(given + odd * width, room->given + r * per_row, width);
        vec sum = {0};
        for (long i = 0; i < width; i += LANES) sum += LOAD(given + odd * width + i) * LOAD(out + i);
        room->delta[r] = sum_of(sum);
        room->lse[r] = all->lse[at * all->heads + head];
        if (odd == SPAN - 1 || r == rows - 1) {
            if (odd != SPAN - 1) {
                memset(query + width, 0, (size_t)width * sizeof(float));
                memset(given + width, 0, (size_t)width * sizeof(float));
            }
            NAMED(pack_along)(query, query + width, room->queries_along + r / SPAN * width, width);
            NAMED(pack_along)(given, given + width, room->given_along + r / SPAN * width, width);
        }
    }
}

/* The score gradients of a block of rows, by row and by key, and its queries' gradients. */
static void NAMED(backward_rows)(const struct attention *all, const struct seen *seen, long key_head, long first, long rows,
                                 long keys, struct room *room) {
    const long group = all->heads / all->key_heads, width = all->width, per_row = width / SPAN;
    for (long r = 0; r < rows; r += ROWS) {
        const int R = (int)(rows - r < ROWS ? rows - r : ROWS);
        const struct reach reach = reach_of(all, seen, (first + r) / group, (first + r + R - 1) / group);
        const long n = (reach.last_block - reach.first_block) * LANES, from = reach.first_block * LANES;
        NAMED(product)(R, (int)(n / LANES), per_row, room->queries + r * per_row, per_row, room->keys_across + from * per_row,
                       LANES, LANES * per_row, room->scores, n);
        NAMED(product)(R, (int)(n / LANES), per_row, room->given + r * per_row, per_row, room->values_across + from * per_row,
                       LANES, LANES * per_row, room->scores + ROWS * n, n);
        for (int i = 0; i < R; i++) hide(all, seen, (first + r + i) / group, reach, room->scores + i * n);
        for (int i = 0; i < R; i += SPAN) {
            const long at = (r + i) / SPAN * keys + from;
            NAMED(slope_rows)(all, room->scores + i * n, room->scores + (ROWS + i) * n, n, R - i, room->lse + r + i,
                              room->delta + r + i, room->weights + i * (n / SPAN), room->slopes_by_key + at,
                              room->weights_by_key + at);
        }
        NAMED(product)(R, (int)(width / LANES), n / SPAN, room->weights, n / SPAN, room->keys_along + from / SPAN * width,
                       width, LANES, room->scores, width);
        for (int i = 0; i < R; i++) {
            const long at = seen->start + (first + r + i) / group, head = key_head * group + (first + r + i) % group;
            NUMBER *dq = (NUMBER *)all->dq + at * all->dq_stride.row + head * all->dq_stride.head;
            NAMED(write_row)(room->scores + i * width, dq, width, all, at);
        }
    }
}

static void NAMED(backward_head)(const struct attention *all, const struct seen *seen, long key_head, struct room *room) {
    const long group = all->heads / all->key_heads, width = all->width, before = seen->keys - (seen->end - seen->start);
    NAMED(pack_keys)(all, (const NUMBER *)all->k + key_head * all->k_stride.head, all->k_stride, seen, 1, room->keys_across, room->keys_along, room->floats, room->units);
    NAMED(pack_keys)(all, (const NUMBER *)all->v + key_head * all->v_stride.head, all->v_stride, seen, 0, room->values_across, NULL, room->floats, room->units);
    memset(room->key_gradients, 0, (size_t)(seen->blocks * LANES * width) * sizeof(float));
    memset(room->value_gradients, 0, (size_t)(seen->blocks * LANES * width) * sizeof(float));
    const long rows = (seen->end - seen->start) * group, batch = batch_rows(seen->blocks * LANES, group);
    for (long first = 0; first < rows; first += batch) {
        const long here = rows - first < batch ? rows - first : batch;
        const struct reach reach = reach_of(all, seen, first / group, (first + here - 1) / group);
        const long keys = reach.last_block * LANES;
        NAMED(pack_queries)(all, seen, key_head, first, here, room);
        NAMED(backward_rows)(all, seen, key_head, first, here, keys, room);
        for (long key = reach.first_block * LANES; key < keys; key += STRIP) {
            long low = (key - before) * group - first, high = here; /* rows that may see a key of the strip */
            if (all->window > 0 && (key + STRIP - 1 + all->window - before) * group - first < high)
                high = (key + STRIP - 1 + all->window - before) * group - first;
            if (low < 0) low = 0;
            if (high <= low) continue;
            const long step = low / SPAN, steps = (high + SPAN - 1) / SPAN - step;
            NAMED(add_strip)((int)(width / LANES), steps, room->weights_by_key + step * keys + key, keys,
                             room->given_along + step * width, width, room->value_gradients + key * width, width);
            NAMED(add_strip)((int)(width / LANES), steps, room->slopes_by_key + step * keys + key, keys,
                             room->queries_along + step * width, width, room->key_gradients + key * width, width);
        }
    }
    for (long key = 0; key < seen->keys; key++) {
        const long at = place_of(seen, key);
        float *dk = room->key_gradients + key * width, *dv = room->value_gradients + key * width;
        if (room->shared != NULL) { /* a prefix's rows gather from several segments */
            float *sums = room->shared + 2 * at * width;
            for (long i = 0; i < width; i += LANES) STORE(sums + i, LOAD(sums + i) + LOAD(dk + i));
            for (long i = 0; i < width; i += LANES) STORE(sums + width + i, LOAD(sums + width + i) + LOAD(dv + i));
        } else {
            NAMED(write_row)(dk, (NUMBER *)all->dk + at * all->dk_stride.row + key_head * all->dk_stride.head, width, all, at);
            NAMED(write_row)(dv, (NUMBER *)all->dv + at * all->dv_stride.row + key_head * all->dv_stride.head, width, NULL, at);
        }
    }
}

static void NAMED(write_shared)(const struct attention *all, long key_head, struct room *room) {
    const long width = all->width;
    for (long at = 0; at < all->tokens; at++) {
        float *sums = room->shared + 2 * at * width;
        NAMED(write_row)(sums, (NUMBER *)all->dk + at * all->dk_stride.row + key_head * all->dk_stride.head, width, all, at);
        NAMED(write_row)(sums + width, (NUMBER *)all->dv + at * all->dv_stride.row + key_head * all->dv_stride.head, width, NULL, at);
    }
}

#undef SPAN
#undef PART
