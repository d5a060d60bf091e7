/* A whole step of a dense Llama-like decoder over slots: rows that each continue an answer and chunks of prompts, each
 * with its own adapter, from token ids to logits, in one call.
 *
 * Few rows make a step a matter of reading weights, so everything else is done on the way: norms, rotary positions,
 * attention over each row's own length, what adapters add, gates. A product sums each number in one order whatever else
 * is computed (rowproduct.h), attention goes row by row, adapters are read for the rows that have them: a row's result
 * is the same to the last bit in any company, in any chunking, on any number of threads. Weights may be codes of eight
 * bits with a scale to each row; these become numbers in registers, and nothing else changes.
 *
 * Rows: (q k v), attention, (out, gate and up, down), of which behind the last attention only those go on that decide a
 * token. Legend: m width, h heads, kv key heads, d head width, f hidden, i in, o out, r ranks.
 */
#include "crew.h"
#include "sums.h"

#define PARTS 3 /* linear layers of the model to a product at most */
#define BLOCK 64 /* rows that go through a product together: what it gives stays in the cache */

/* Mirrored by espalier.nn.kernels.step: keep all of these alike. */
struct place { /* layers of the model that read one input, as one product */
    const void *weight;  /* (o, i): numbers, or where there are scales codes of eight bits */
    const float *bias;   /* (o) or NULL */
    const float *scales; /* (o) what a row's codes are multiplied by, or NULL */
    int64_t in, out, parts[PARTS]; /* outputs of each layer */
};
struct pair { /* what one adapter has at a place; down NULL: nothing */
    const void *down;   /* A of each part under one another (r, i) */
    const void *up;     /* B^T of each part (r, o) behind one another */
    const float *scale; /* (o) multiplies the base's product, or NULL */
    int64_t ranks[PARTS];
};
struct layer {
    struct place qkv, out, gate_up, down;
    const float *attention_gain, *mlp_gain, *query_gain, *key_gain; /* the last two NULL: no head norms */
    void *keys, *values; /* (slots, kv, positions, d) */
    int64_t window, turns; /* window 0: all */
};
struct model {
    const struct layer *layers;
    const void *table; /* (vocabulary, m) */
    struct place head;
    const float *final_gain, *cos, *sin; /* (positions, turning) */
    int64_t count, width, heads, key_heads, head_width, hidden, vocabulary, turning, slot_stride, head_stride;
    float eps, scale;
    int32_t is_half;
};
struct run { /* neighbouring rows of one adapter */
    const struct pair *pairs; /* four to a layer, then the head's; or NULL: the base alone */
    int64_t begin, end;
};
struct step {
    const struct model *model;
    const int64_t *ids, *positions, *slots; /* (rows) */
    const int64_t *deciding; /* (decided), ascending */
    const struct run *runs;
    int64_t rows, decided, run_count, sharing, shared; /* the first `sharing` rows have `shared` positions in common */
    int64_t most_ranks, longest, threads;
    float *logits; /* (decided, vocabulary) */
    float *x, *wide, *narrow; /* room, from here on */
    void *normed, *queries, *attended, *gated;
};
struct scratch { float *inner, *scores, *sums; struct run *runs; }; /* a thread's own */
struct share { long from, to; };

static inline struct share share_of(long count, long grain, int number, int crew) {
    const long grains = (count + grain - 1) / grain;
    const long from = grains * number / crew * grain, to = grains * (number + 1) / crew * grain;
    return (struct share){from < count ? from : count, to < count ? to : count};
}

static float square_sum(const float *x, long width) {
    vec sum = {0};
    float rest = 0.0f;
    long j = 0;
    for (; j + LANES <= width; j += LANES) sum += LOAD(x + j) * LOAD(x + j);
    for (; j < width; j++) rest += x[j] * x[j];
    return sum_of(sum) + rest;
}

static void add_row(float *restrict x, const float *restrict y, long width) {
    for (long j = 0; j < width; j++) x[j] += y[j];
}

static void scale_row(float *restrict x, const float *restrict scales, long width) {
    for (long j = 0; j < width; j++) x[j] *= scales[j];
}

/* Numbers i and i + n of a head turn together. */
static void turn_row(float *restrict x, const float *restrict cos, const float *restrict sin, long n) {
    for (long i = 0; i < n; i++) {
        const float a = x[i], b = x[i + n];
        x[i] = a * cos[i] - b * sin[i];
        x[i + n] = b * cos[i] + a * sin[i];
    }
}

/* Scores to weights, in place. */
static void softmax_row(float *x, long count, float scale) {
    vec most = fill(-INFINITY);
    float largest, total, rest = 0.0f;
    long k = 0;
    for (; k + LANES <= count; k += LANES) {
        const vec score = LOAD(x + k) * scale;
        STORE(x + k, score);
        most = larger(most, score);
    }
    largest = largest_of(most);
    for (; k < count; k++) {
        x[k] *= scale;
        if (!(x[k] <= largest)) largest = x[k];
    }
    vec sum = {0};
    for (k = 0; k + LANES <= count; k += LANES) {
        const vec weight = exp_of(LOAD(x + k) - largest);
        STORE(x + k, weight);
        sum += weight;
    }
    for (; k < count; k++) {
        x[k] = exp_of(fill(x[k] - largest))[0];
        rest += x[k];
    }
    total = sum_of(sum) + rest;
    const float share = 1.0f / total;
    for (k = 0; k < count; k++) x[k] *= share;
}

/* The runs of the deciding rows, whose numbers begin at 0 again. */
static void narrow_runs(const struct step *step, struct run *runs) {
    long at = 0;
    for (long i = 0; i < step->run_count; i++) {
        runs[i] = (struct run){step->runs[i].pairs, at, at};
        while (at < step->decided && step->deciding[at] < step->runs[i].end) at++;
        runs[i].end = at;
    }
}

static inline float get_one_float(const float *from) { return *from; }
static inline void put_one_float(float *to, float x) { *to = x; }
static inline float get_one_half(const half *from) {
    const union { uint32_t bits; float number; } one = {(uint32_t)*from << 16};
    return one.number;
}
static inline void put_one_half(half *to, float x) { *to = narrow(fill(x))[0]; }

#define ROWS_OF(SUFFIX, NUMBER) \
    static void copy_row_##SUFFIX(const float *from, NUMBER *to, long width) { \
        long j = 0; \
        for (; j + LANES <= width; j += LANES) STORE(to + j, LOAD(from + j)); \
        for (; j < width; j++) put_one_##SUFFIX(to + j, from[j]); \
    } \
    static void read_row_##SUFFIX(const NUMBER *from, float *to, long width) { \
        long j = 0; \
        for (; j + LANES <= width; j += LANES) STORE(to + j, LOAD(from + j)); \
        for (; j < width; j++) to[j] = get_one_##SUFFIX(from + j); \
    }
ROWS_OF(float, float)
ROWS_OF(half, half)

#define SUFFIX float
#define NUMBER float
#define UNIT_PAIRS 0
#include "step.h"
#undef SUFFIX
#undef NUMBER
#undef UNIT_PAIRS

#define SUFFIX half
#define NUMBER half
#define UNIT_PAIRS PAIRS
#include "step.h"

static void *take(char **at, size_t bytes) {
    char *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* Lay the room out from `base`; returns the bytes it takes. */
static size_t lay_out(struct step *step, struct scratch *rooms, char *base) {
    const struct model *model = step->model;
    const size_t number = model->is_half ? 2 : 4, rows = (size_t)step->rows, block = rows < BLOCK ? rows : BLOCK;
    const size_t m = (size_t)model->width, f = (size_t)model->hidden, h = (size_t)(model->heads * model->head_width);
    const size_t qkv = (size_t)model->layers[0].qkv.out, group = (size_t)(model->heads / model->key_heads);
    char *at = base;
    step->x = take(&at, rows * m * 4);
    step->wide = take(&at, block * (qkv > 2 * f ? qkv : 2 * f) * 4);
    step->narrow = take(&at, block * m * 4);
    step->normed = take(&at, block * m * number);
    step->gated = take(&at, block * f * number);
    step->queries = take(&at, rows * h * number);
    step->attended = take(&at, rows * h * number);
    for (long n = 0; n < step->threads; n++) {
        rooms[n].inner = take(&at, (size_t)(TOGETHER_ROWS * step->most_ranks) * 4);
        rooms[n].scores = take(&at, group * (size_t)step->longest * 4);
        rooms[n].sums = take(&at, group * (size_t)model->head_width * 4);
        rooms[n].runs = take(&at, (size_t)step->run_count * sizeof(struct run));
    }
    return (size_t)(at - base);
}

#define MOST_THREADS 64
struct errand { struct step step; struct scratch rooms[MOST_THREADS]; };

static void work(void *what, int number, int crew) {
    struct errand *errand = what;
    if (errand->step.model->is_half) run_step_half(errand->step, number, crew, errand->rooms + number);
    else run_step_float(errand->step, number, crew, errand->rooms + number);
}

/* Returns 0, or 1 where there is no memory. */
int espalier_step(const struct step *given) {
    struct errand errand = {.step = *given};
    if (errand.step.threads > MOST_THREADS) errand.step.threads = MOST_THREADS;
    const size_t bytes = lay_out(&errand.step, errand.rooms, (char *)0);
    char *base = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (base == NULL) return 1;
    lay_out(&errand.step, errand.rooms, base);
    espalier_together(work, &errand, (int)errand.step.threads);
    free(base);
    return 0;
}
