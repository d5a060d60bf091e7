/* Exact attention inside segments, forward and backward, on one core: FlashAttention's arithmetic (Dao 2023, arXiv
 * 2307.08691: no scores kept, the backward pass makes them again from each row's log-sum-exp), laid out for short
 * documents on a CPU. Rows are (position, head of the group that shares a key head), six at a time against the keys they
 * may see and no others, so that nothing above the diagonal is computed but what fills a vector.
 *
 * Everything happens in one order: the same numbers give the same bytes.
 */
#include "vectors.h"

#define HIDDEN (-1e30f)

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

/* The keys a segment sees, its prefix before its own. */
struct seen { long start, end, prefix, before, keys, blocks; };

/* Blocks of LANES keys that a run of rows may see between them. */
struct reach { long first_block, last_block; };

/* Scratch of one call, sized for its longest segment. */
struct room {
    uint32_t *keys_across, *keys_along, *values_across, *values_along, *units, *weights;
    uint32_t *queries, *queries_along, *given, *given_along, *slopes_by_key, *weights_by_key;
    float *floats, *scores, *delta, *lse, *key_gradients, *value_gradients, *shared;
};

static struct seen seen_by(const int32_t *segment) {
    struct seen seen = {segment[0], segment[1], segment[2], segment[3] - segment[2], 0, 0};
    seen.keys = seen.before + seen.end - seen.start;
    seen.blocks = (seen.keys + LANES - 1) / LANES;
    return seen;
}
static inline long place_of(const struct seen *seen, long key) {
    return key < seen->before ? seen->prefix + key : seen->start + key - seen->before;
}
static inline long lowest(const struct attention *all, const struct seen *seen, long position) {
    long low = all->window > 0 ? seen->before + position - all->window + 1 : 0;
    return low > 0 ? low : 0;
}
static inline struct reach reach_of(const struct attention *all, const struct seen *seen, long first, long last) {
    return (struct reach){lowest(all, seen, first) / LANES, (seen->before + last + LANES) / LANES};
}
/* Cover what a row in this reach may not see. */
static inline void hide(const struct attention *all, const struct seen *seen, long position, struct reach reach, float *scores) {
    const long from = reach.first_block * LANES, low = lowest(all, seen, position);
    const long high = seen->before + position + 1;
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

/* Numbers i and i + n of a row turn together; side -1 turns back. */
static inline void turn_row(float *restrict x, const float *restrict cos, const float *restrict sin, long n, float side) {
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
static long batch_rows(long keys, long group) {
    long rows = BATCH_BYTES / (8 * keys);
    rows = rows < 48 ? 48 : rows > 768 ? 768 : rows;
    (void)group;
    return rows / 12 * 12;
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

static void *take(char **at, size_t bytes) {
    char *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* Lay scratch out from `base`; returns the bytes it takes. */
static size_t lay_out(const struct attention *all, int backward, struct room *room, char *base) {
    long most = 0, rows = 0;
    int shared = 0;
    for (long i = 0; i < all->count; i++) {
        struct seen seen = seen_by(all->segments + 4 * i);
        long keys = seen.blocks * LANES, here = (seen.end - seen.start) * (all->heads / all->key_heads);
        long batch = batch_rows(keys > 0 ? keys : LANES, 1);
        most = keys > most ? keys : most;
        if ((here < batch ? here : batch) > rows) rows = here < batch ? here : batch;
        shared |= seen.before > 0;
    }
    const size_t width = (size_t)all->width, keys = (size_t)most, side = SIDE;
    const size_t wide = keys > width ? keys : width;
    rows = (rows + 1) / 2 * 2;
    char *at = base;
    room->keys_across = take(&at, keys * width * 4);
    room->values_along = take(&at, keys * width * 4);
    room->floats = take(&at, side * width * 4);
    room->units = take(&at, side * width * 4);
    room->scores = take(&at, 2 * ROWS * wide * 4);
    room->weights = take(&at, ROWS * keys * 4);
    room->shared = NULL;
    if (backward) {
        room->keys_along = take(&at, keys * width * 4);
        room->values_across = take(&at, keys * width * 4);
        room->queries = take(&at, (size_t)rows * width * 4);
        room->queries_along = take(&at, (size_t)rows * width * 4);
        room->given = take(&at, (size_t)rows * width * 4);
        room->given_along = take(&at, (size_t)rows * width * 4);
        room->delta = take(&at, (size_t)rows * 4);
        room->lse = take(&at, (size_t)rows * 4);
        room->key_gradients = take(&at, keys * width * 4);
        room->value_gradients = take(&at, keys * width * 4);
        size_t by_key = 0;
        for (long i = 0; i < all->count; i++) {
            struct seen seen = seen_by(all->segments + 4 * i);
            long own = seen.blocks * LANES, batch = batch_rows(own > 0 ? own : LANES, 1);
            long here = (seen.end - seen.start) * (all->heads / all->key_heads);
            size_t need = (size_t)own * (size_t)(((here < batch ? here : batch) + 1) / 2 * 2);
            by_key = need > by_key ? need : by_key;
        }
        room->slopes_by_key = take(&at, by_key * 4);
        room->weights_by_key = take(&at, by_key * 4);
        if (shared) room->shared = take(&at, (size_t)all->tokens * 2 * width * 4);
    }
    return (size_t)(at - base);
}

/* A segment under one key head. Heads go innermost, their rows lie beside one another; but where segments share keys
 * all segments of a head come together, so that one sum at a time is kept. */
struct work { struct seen seen; long index, key_head; };

static struct work work_of(const struct attention *all, long unit, int shared) {
    const long index = shared ? unit % all->count : unit / all->key_heads;
    return (struct work){seen_by(all->segments + 4 * index), index, shared ? unit / all->count : unit % all->key_heads};
}

/* Ask for the memory of the coming unit while this one is computed: rows lie too far apart for the CPU to foresee. */
static void fetch_heads(const void *from, struct stride stride, long start, long end, long head, long bytes, long number) {
    for (long at = start; at < end; at++) {
        const char *row = (const char *)from + (at * stride.row + head * stride.head) * number;
        for (long i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
    }
}
static void fetch(const struct attention *all, struct work next, long number, int backward) {
    const long start = next.seen.start, end = next.seen.end, group = all->heads / all->key_heads, head = next.key_head;
    const long one = all->width * number;
    const struct stride dense = {all->heads * all->width, all->width};
    fetch_heads(all->k, all->k_stride, start, end, head, one, number);
    fetch_heads(all->v, all->v_stride, start, end, head, one, number);
    fetch_heads(all->q, all->q_stride, start, end, head * group, group * one, number);
    if (!backward) return;
    fetch_heads(all->out, dense, start, end, head * group, group * one, number);
    fetch_heads(all->dout, all->dout_stride, start, end, head * group, group * one, number);
}

/* `half_precision` 1: bfloat16 in and out, 0: float32. Returns 0, or 1 where there is no memory. */
int espalier_attend(const struct attention *all, int half_precision, int backward) {
    struct room room;
    size_t bytes = lay_out(all, backward, &room, (char *)0);
    char *base = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (base == NULL) return 1;
    lay_out(all, backward, &room, base);
    const long units = all->count * all->key_heads;
    for (long unit = 0; unit < units; unit++) {
        const struct work work = work_of(all, unit, room.shared != NULL);
        if (unit + 1 < units) fetch(all, work_of(all, unit + 1, room.shared != NULL), half_precision ? 2 : 4, backward);
        if (room.shared != NULL && work.index == 0) memset(room.shared, 0, (size_t)(all->tokens * 2 * all->width) * 4);
        if (work.seen.end > work.seen.start) {
            if (backward && half_precision) backward_head_half(all, &work.seen, work.key_head, &room);
            else if (backward) backward_head_float(all, &work.seen, work.key_head, &room);
            else if (half_precision) forward_head_half(all, &work.seen, work.key_head, &room);
            else forward_head_float(all, &work.seen, work.key_head, &room);
        }
        if (room.shared != NULL && work.index == all->count - 1) {
            if (half_precision) write_shared_half(all, work.key_head, &room);
            else write_shared_float(all, work.key_head, &room);
        }
    }
    free(base);
    return 0;
}

/* 2 x the floats of a vector, + 1 where products take pairs of bfloat16. */
int espalier_vectors(void) { return 2 * LANES + PAIRS; }
