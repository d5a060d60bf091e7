/* Exact attention inside segments, forward and backward, on one core: FlashAttention's arithmetic (Dao 2023, arXiv
 * 2307.08691: no scores kept, the backward pass makes them again from each row's log-sum-exp), laid out for short
 * documents on a CPU: six rows at a time against the keys they may see and no others, so that nothing above the
 * diagonal is computed but what fills a vector.
 *
 * Everything happens in one order: the same numbers give the same bytes.
 */
#include "vectors.h"

#define HIDDEN (-1e30f)
#define LOG2_E 1.44269504088896341f
#define LN_2 0.693147180559945309f

struct stride { int64_t row, head; }; /* in numbers */

/* Mirrored by espalier.nn.kernels.attention: keep the two alike. */
struct attention {
    const void *q, *k, *v;
    void *out;         /* (tokens, heads, width) contiguous */
    float *lse;        /* (tokens, heads) */
    const void *dout;
    void *dq, *dk, *dv;
    const float *cos, *sin; /* (tokens, turning) or NULL */
    const int32_t *segments; /* (count, 4) */
    struct stride q_stride, k_stride, v_stride, dout_stride, dq_stride, dk_stride, dv_stride;
    int64_t count, tokens, heads, key_heads, width, turning, window; /* window 0: all */
    float scale, softcap;                                            /* softcap 0: none */
};

/* A segment under one key head: `before` keys of its prefix, then its own; `rows` are (position, head of the group that
 * shares the key head), heads innermost. */
struct work { long index, start, end, prefix, before, keys, blocks, key_head, group, rows; uint64_t inverse; };
struct row { long at, head; }; /* a position of the pack, one of all heads */

/* Blocks of LANES keys that a run of rows may see between them. */
struct reach { long first_block, last_block; };

/* Scratch of one call, sized for its longest segment. */
struct room {
    uint32_t *keys_across, *keys_along, *values_across, *values_along, *units, *weights;
    uint32_t *queries, *queries_along, *given, *given_along, *slopes_by_key, *weights_by_key;
    float *floats, *scores, *delta, *lse, *key_gradients, *value_gradients, *shared;
};

static struct work work_of(const struct attention *all, long index, long key_head) {
    const int32_t *segment = all->segments + 4 * index;
    struct work work = {.index = index, .start = segment[0], .end = segment[1], .prefix = segment[2]};
    work.key_head = key_head;
    work.before = segment[3] - segment[2];
    work.keys = work.before + work.end - work.start;
    work.blocks = (work.keys + LANES - 1) / LANES;
    work.group = all->heads / all->key_heads;
    work.rows = (work.end - work.start) * work.group;
    work.inverse = (1ull << 40) / (uint64_t)work.group + 1;
    return work;
}
/* A row's position within the segment: row / group, by a multiplication (exact below 2^40 / group^2 rows). */
static inline long position_of(const struct work *work, long row) {
    return (long)(((uint64_t)row * work->inverse) >> 40);
}
static inline struct row row_of(const struct work *work, long row) {
    const long position = position_of(work, row);
    return (struct row){work->start + position, work->key_head * work->group + row - position * work->group};
}
static inline long key_at(const struct work *work, long key) {
    return key < work->before ? work->prefix + key : work->start + key - work->before;
}
static inline struct stride dense(const struct attention *all) {
    return (struct stride){all->heads * all->width, all->width};
}
static inline long lowest(const struct attention *all, const struct work *work, long position) {
    const long low = all->window > 0 ? work->before + position - all->window + 1 : 0;
    return low > 0 ? low : 0;
}
static inline struct reach reach_of(const struct attention *all, const struct work *work, long first, long last) {
    return (struct reach){lowest(all, work, position_of(work, first)) / LANES,
                          (work->before + position_of(work, last) + LANES) / LANES};
}
/* Cover what a row may not see of a reach. */
static inline void hide(const struct attention *all, const struct work *work, struct row row, struct reach reach,
                        float *scores) {
    const long from = reach.first_block * LANES, position = row.at - work->start;
    const long low = lowest(all, work, position), high = work->before + position + 1;
    for (long key = from; key < low; key += LANES)
        STORE(scores + key - from, between(low - key, LANES, LOAD(scores + key - from), fill(HIDDEN)));
    for (long key = high / LANES * LANES; key < reach.last_block * LANES; key += LANES)
        STORE(scores + key - from, between(0, high - key, LOAD(scores + key - from), fill(HIDDEN)));
}

/* softcap tanh(scale score / softcap), hidden scores as they are; and its slope by the score. */
INLINE vec bend(vec score, const struct attention *all, vec *slope) {
    vec tangent = tanh_of(score * (all->scale / all->softcap));
    *slope = all->scale * (1.0f - tangent * tangent);
    return choose(score <= HIDDEN, score, all->softcap * tangent);
}

#define TOGETHER 3 /* rows whose softmax is computed side by side */

/* Rows lie too far apart for the CPU to foresee which comes next. */
#define AHEAD 24   /* rows */
#define FETCHED 96 /* positions */
static inline void ask(const void *from, long bytes) {
    for (long i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)from + i, 0, 3);
}

/* Numbers i and i + n of a row turn together; side -1 turns back. */
static inline void turn_row(float *restrict x, const float *restrict cos, const float *restrict sin, long n,
                            float side) {
    for (long i = 0; i < n; i++) {
        const float a = x[i], b = x[i + n], s = side * sin[i];
        x[i] = a * cos[i] - b * s;
        x[i + n] = b * cos[i] + a * s;
    }
}

/* LANES rows of units, the first `count` of each, so that the units of a column lie side by side. */
static inline void transpose(const uint32_t *rows, long row, uint32_t *to, long count) {
#if WIDE
    if (count >= LANES) {
        __m512i a[16], b[16];
        UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows + i * row);
        UNROLL for (int i = 0; i < 16; i += 2) {
            b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        }
        UNROLL for (int i = 0; i < 16; i += 4) {
            a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
            a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
            a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
            a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
            b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
            b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
            b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        }
        UNROLL for (int i = 0; i < 8; i++) {
            _mm512_storeu_si512(to + i * LANES, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
            _mm512_storeu_si512(to + (i + 8) * LANES, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
        }
        return;
    }
#endif
    if (count > LANES) count = LANES;
    for (long unit = 0; unit < count; unit++)
        for (long i = 0; i < LANES; i++) to[unit * LANES + i] = rows[i * row + unit];
}

/* Rows of the backward pass taken together: more save passes over the keys' gradients, fewer fit in the cache. */
#define BATCH_BYTES (384 * 1024)
static long batch_rows(long keys) {
    const long rows = BATCH_BYTES / (8 * (keys > LANES ? keys : LANES));
    return (rows < 48 ? 48 : rows > 768 ? 768 : rows) / 12 * 12; /* whole ROWS, whole pairs */
}

#define SUFFIX float
#define NUMBER float
#define UNIT_PAIRS 0
#include "attention.h"
#undef SUFFIX
#undef NUMBER
#undef UNIT_PAIRS

#define SUFFIX half
#define NUMBER half
#define UNIT_PAIRS PAIRS
#include "attention.h"

static void *take(char **at, size_t units) {
    char *here = *at;
    *at += (4 * units + 63) / 64 * 64;
    return here;
}

/* Lay scratch out from `base`; returns the bytes it takes. */
static size_t lay_out(const struct attention *all, int backward, struct room *room, char *base) {
    size_t keys = 0, rows = 0, by_key = 0;
    int shared = 0;
    for (long i = 0; i < all->count; i++) {
        const struct work work = work_of(all, i, 0);
        const size_t own = (size_t)(work.blocks * LANES), batch = (size_t)batch_rows(work.blocks * LANES);
        const size_t here = ((size_t)work.rows < batch ? (size_t)work.rows + 1 : batch) / 2 * 2;
        keys = own > keys ? own : keys;
        rows = here > rows ? here : rows;
        by_key = own * here > by_key ? own * here : by_key;
        shared |= work.before > 0;
    }
    const size_t width = (size_t)all->width;
    char *at = base;
    room->keys_across = take(&at, keys * width);
    room->values_along = take(&at, keys * width);
    room->floats = take(&at, SIDE * width);
    room->units = take(&at, SIDE * width);
    room->scores = take(&at, 2 * ROWS * (keys > width ? keys : width));
    room->weights = take(&at, ROWS * keys);
    room->shared = NULL;
    if (!backward) return (size_t)(at - base);
    room->keys_along = take(&at, keys * width);
    room->values_across = take(&at, keys * width);
    room->queries = take(&at, rows * width);
    room->queries_along = take(&at, rows * width);
    room->given = take(&at, rows * width);
    room->given_along = take(&at, rows * width);
    room->delta = take(&at, rows);
    room->lse = take(&at, rows);
    room->key_gradients = take(&at, keys * width);
    room->value_gradients = take(&at, keys * width);
    room->slopes_by_key = take(&at, by_key);
    room->weights_by_key = take(&at, by_key);
    if (shared) room->shared = take(&at, (size_t)all->tokens * 2 * width);
    return (size_t)(at - base);
}

/* Ask for the first rows of the coming work while this one is computed; the others are asked for on the way. */
static void fetch(const struct attention *all, struct work next, long number, int backward) {
    const long end = next.end < next.start + FETCHED ? next.end : next.start + FETCHED;
    const long head = next.key_head * next.group, bytes = all->width * number, together = next.group * bytes;
    for (long at = next.start; at < end; at++) {
        ask((const char *)all->k + (at * all->k_stride.row + next.key_head * all->k_stride.head) * number, bytes);
        ask((const char *)all->v + (at * all->v_stride.row + next.key_head * all->v_stride.head) * number, bytes);
        ask((const char *)all->q + (at * all->q_stride.row + head * all->q_stride.head) * number, together);
        if (!backward) continue;
        ask((const char *)all->out + (at * all->heads + head) * bytes, together);
        ask((const char *)all->dout + (at * all->dout_stride.row + head * all->dout_stride.head) * number, together);
    }
}

/* The n-th work. Heads go innermost, their rows lie beside one another; but where segments share keys all segments of a
 * head come together, so that one sum at a time is kept. */
static struct work nth(const struct attention *all, long n, int shared) {
    return shared ? work_of(all, n % all->count, n / all->count) : work_of(all, n / all->key_heads, n % all->key_heads);
}

/* `is_half` 1: bfloat16 in and out, 0: float32. Returns 0, or 1 where there is no memory. */
int espalier_attend(const struct attention *all, int is_half, int backward) {
    struct room room;
    const size_t bytes = lay_out(all, backward, &room, (char *)0);
    char *base = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (base == NULL) return 1;
    lay_out(all, backward, &room, base);
    const int shared = room.shared != NULL;
    const long works = all->count * all->key_heads;
    for (long n = 0; n < works; n++) {
        const struct work work = nth(all, n, shared);
        if (n + 1 < works) fetch(all, nth(all, n + 1, shared), is_half ? 2 : 4, backward);
        if (shared && work.index == 0) memset(room.shared, 0, (size_t)(all->tokens * 2 * all->width) * sizeof(float));
        if (backward && is_half) backward_half(all, &work, &room);
        else if (backward) backward_float(all, &work, &room);
        else if (is_half) forward_half(all, &work, &room);
        else forward_float(all, &work, &room);
        if (shared && work.index == all->count - 1) {
            if (is_half) write_shared_half(all, work.key_head, &room);
            else write_shared_float(all, work.key_head, &room);
        }
    }
    free(base);
    return 0;
}

/* 2 x the floats of a vector, + 1 where products take pairs of bfloat16. */
int espalier_vectors(void) { return 2 * LANES + PAIRS; }
