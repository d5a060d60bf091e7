/* A step of a dense decoder for one type of numbers: see step.c for its order.
 *
 * Included with NUMBER, UNIT_PAIRS and SUFFIX as attention.h. Products read NUMBER and give float; what is summed up
 * between layers stays float.
 */
#define NAMED_(name, suffix) name##_##suffix
#define NAMED2(name, suffix) NAMED_(name, suffix)
#define NAMED(name) NAMED2(name, SUFFIX)

#define WEIGHT NUMBER
#define OWN(name) NAMED(name)
#include "rowproduct.h"
#undef WEIGHT
#undef OWN
#define WEIGHT int8_t
#define OWN(name) NAMED(coded_##name)
#include "rowproduct.h"
#undef WEIGHT
#undef OWN

/* y (NUMBER) = x / rms(x) gain */
static void NAMED(norm_row)(const float *x, const float *gain, long width, float eps, NUMBER *y) {
    const float scale = 1.0f / sqrtf(square_sum(x, width) / (float)width + eps);
    long j = 0;
    for (; j + LANES <= width; j += LANES) STORE(y + j, LOAD(x + j) * scale * LOAD(gain + j));
    for (; j < width; j++) NAMED(put_one)(y + j, x[j] * scale * gain[j]);
}

/* y += inner up: what a row's adapter adds in one part of the outputs; `scale` (o) multiplies what was there. */
static void NAMED(spread)(const float *inner, const NUMBER *up, long rank, long o, const float *scale, float *y) {
    long j = 0;
    for (; j + 4 * LANES <= o; j += 4 * LANES) {
        vec sum[4];
        UNROLL for (int n = 0; n < 4; n++) {
            sum[n] = LOAD(y + j + n * LANES);
            if (scale != NULL) sum[n] *= LOAD(scale + j + n * LANES);
        }
        for (long k = 0; k < rank; k++)
            UNROLL for (int n = 0; n < 4; n++) sum[n] += inner[k] * LOAD(up + k * o + j + n * LANES);
        UNROLL for (int n = 0; n < 4; n++) STORE(y + j + n * LANES, sum[n]);
    }
    for (; j < o; j++) {
        float sum = scale != NULL ? y[j] * scale[j] : y[j];
        for (long k = 0; k < rank; k++) sum = fmaf(inner[k], NAMED(get_one)(up + k * o + j), sum);
        y[j] = sum;
    }
}

/* What adapters add at place `at` to the rows first .. last of the step, and the bias; x and y begin at row `first`. */
static void NAMED(adapt)(const struct step *step, int at, const struct place *place, long first, long last,
                         const NUMBER *x, float *y, float *inner) {
    for (long i = 0; i < step->run_count; i++) {
        const struct run *run = step->runs + i;
        const long begin = run->begin > first ? run->begin : first, end = run->end < last ? run->end : last;
        if (begin >= end || run->pairs == NULL || run->pairs[at].down == NULL) continue;
        const struct pair *pair = run->pairs + at;
        const long ranks = pair->ranks[0] + pair->ranks[1] + pair->ranks[2], in = place->in;
        for (long r = begin; r < end; r += TOGETHER_ROWS) {
            const long some = end - r < TOGETHER_ROWS ? end - r : TOGETHER_ROWS;
            NAMED(rows_product)(some, x + (r - first) * in, in, pair->down, in, in, 0, ranks, inner, ranks);
            for (long n = 0; n < some; n++) {
                const float *own = inner + n * ranks;
                const NUMBER *up = pair->up;
                float *to = y + (r - first + n) * place->out;
                const float *scale = pair->scale;
                for (int part = 0; part < PARTS; part++) {
                    const long rank = pair->ranks[part], o = place->parts[part];
                    if (rank > 0) NAMED(spread)(own, up, rank, o, scale, to);
                    own += rank;
                    up += rank * o;
                    to += o;
                    if (scale != NULL) scale += o;
                }
            }
        }
    }
    if (place->bias != NULL)
        for (long r = 0; r < last - first; r++)
            for (long j = 0; j < place->out; j++) y[r * place->out + j] += place->bias[j];
}

/* q, k and v of rows first .. last: head norms, turned, k and v into their slots, q (NUMBER) to the side. */
static void NAMED(place_heads)(const struct step *step, const struct layer *layer, long first, long last, float *qkv) {
    const struct model *model = step->model;
    const long d = model->head_width, h = model->heads, kv = model->key_heads, half_turn = model->turning;
    for (long r = first; r < last; r++) {
        float *row = qkv + (r - first) * layer->qkv.out;
        const long position = step->positions[r];
        const float *cos = model->cos + position * half_turn, *sin = model->sin + position * half_turn;
        for (long n = 0; n < h + kv; n++) {
            float *x = row + n * d;
            const float *gain = n < h ? layer->query_gain : layer->key_gain;
            if (gain != NULL) norm_row_float(x, gain, d, model->eps, x);
            if (layer->turns) turn_row(x, cos, sin, half_turn);
        }
        NUMBER *q = (NUMBER *)step->queries + r * h * d;
        NAMED(copy_row)(row, q, h * d);
        const long slot = step->slots[r] * model->slot_stride + position * d;
        for (long n = 0; n < kv; n++) {
            NAMED(copy_row)(row + (h + n) * d, (NUMBER *)layer->keys + slot + n * model->head_stride, d);
            NAMED(copy_row)(row + (h + kv + n) * d, (NUMBER *)layer->values + slot + n * model->head_stride, d);
        }
    }
}

/* sum[g] += weights[g] values, over `count` positions, for R heads and N vectors of their width. */
INLINE void NAMED(gather)(const int R, const int N, const float *weights, long weights_row, const NUMBER *values,
                          long d, long count, float *to, int more) {
    vec sum[4][4];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) sum[r][n] = more ? LOAD(to + r * d + n * LANES) : (vec){0};
    for (long k = 0; k < count; k++)
        UNROLL for (int n = 0; n < N; n++) {
            const vec value = LOAD(values + k * d + n * LANES);
            UNROLL for (int r = 0; r < R; r++) sum[r][n] += weights[r * weights_row + k] * value;
        }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) STORE(to + r * d + n * LANES, sum[r][n]);
}

static void NAMED(gather_some)(int R, const float *weights, long weights_row, const NUMBER *values, long d, long count,
                               float *to, int more) {
    long j = 0;
#define GATHER(R) \
    for (; j + 4 * LANES <= d; j += 4 * LANES) \
        NAMED(gather)(R, 4, weights, weights_row, values + j, d, count, to + j, more); \
    for (; j + LANES <= d; j += LANES) NAMED(gather)(R, 1, weights, weights_row, values + j, d, count, to + j, more);
    switch (R) {
        case 1: GATHER(1) break;
        case 2: GATHER(2) break;
        case 3: GATHER(3) break;
        case 4: GATHER(4) break;
    }
#undef GATHER
    for (; j < d; j++)
        for (int r = 0; r < R; r++) {
            float sum = more ? to[r * d + j] : 0.0f;
            for (long k = 0; k < count; k++)
                sum = fmaf(weights[r * weights_row + k], NAMED(get_one)(values + k * d + j), sum);
            to[r * d + j] = sum;
        }
}

/* One row under one key head: the heads that share it against all positions the row may see. */
static void NAMED(attend_row)(const struct step *step, const struct layer *layer, long row, long key_head,
                              float *scores, float *sums) {
    const struct model *model = step->model;
    const long d = model->head_width, group = model->heads / model->key_heads;
    const long last = step->positions[row] + 1;
    const long start = layer->window > 0 && last > layer->window ? last - layer->window : 0;
    const long shared = row < step->sharing && start == 0 ? step->shared : 0, count = last - start;
    const long head = key_head * model->head_stride;
    const long own = step->slots[row] * model->slot_stride + head + (start + shared) * d;
    const long first = step->slots[0] * model->slot_stride + head; /* of whom all share the beginning with */
    const NUMBER *q = (const NUMBER *)step->queries + (row * model->heads + key_head * group) * d;
    const NUMBER *keys = layer->keys, *values = layer->values;
    NAMED(rows_product)(group, q, d, keys + first, d, d, 0, shared, scores, count);
    NAMED(rows_product)(group, q, d, keys + own, d, d, 0, count - shared, scores + shared, count);
    for (long g = 0; g < group; g++) softmax_row(scores + g * count, count, model->scale);
    for (long g = 0; g < group; g += 4) {
        const int some = group - g < 4 ? (int)(group - g) : 4;
        const float *weights = scores + g * count;
        if (shared > 0) NAMED(gather_some)(some, weights, count, values + first, d, shared, sums + g * d, 0);
        NAMED(gather_some)(some, weights + shared, count, values + own, d, count - shared, sums + g * d, shared > 0);
    }
    NAMED(copy_row)(sums, (NUMBER *)step->attended + (row * model->heads + key_head * group) * d, group * d);
}

static void NAMED(gate_row)(const float *both, long width, NUMBER *to) {
    long j = 0;
    for (; j + LANES <= width; j += LANES) {
        const vec x = LOAD(both + j);
        STORE(to + j, x / (1.0f + exp_of(-x)) * LOAD(both + width + j));
    }
    for (; j < width; j++) {
        const vec x = fill(both[j]);
        NAMED(put_one)(to + j, (x / (1.0f + exp_of(-x)))[0] * both[width + j]);
    }
}

/* y (rows, o) = x w^T, by all threads. */
static void NAMED(products)(const struct place *place, const NUMBER *x, long rows, float *y,
                            int number, int crew) {
    const struct share share = share_of(place->out, WEIGHTS, number, crew);
    const long in = place->in, out = place->out;
    if (place->scales == NULL) {
        NAMED(rows_product)(rows, x, in, place->weight, in, in, share.from, share.to, y, out);
    } else { /* sums run over the codes and are scaled when they are whole */
        NAMED(coded_rows_product)(rows, x, in, place->weight, in, in, share.from, share.to, y, out);
        for (long r = 0; r < rows; r++)
            scale_row(y + r * out + share.from, place->scales + share.from, share.to - share.from);
    }
    espalier_meet(crew);
}

/* What comes before attention: q, k, v of all rows. */
static void NAMED(before)(const struct step *step, long index, int number, int crew, struct scratch *room) {
    const struct model *model = step->model;
    const struct layer *layer = model->layers + index;
    const long m = model->width;
    NUMBER *normed = (NUMBER *)step->normed;
    for (long at = 0; at < step->rows; at += BLOCK) {
        const long count = step->rows - at < BLOCK ? step->rows - at : BLOCK;
        const struct share own = share_of(count, 1, number, crew);
        for (long r = own.from; r < own.to; r++)
            NAMED(norm_row)(step->x + (at + r) * m, layer->attention_gain, m, model->eps, normed + r * m);
        espalier_meet(crew);
        NAMED(products)(&layer->qkv, normed, count, step->wide, number, crew);
        float *qkv = step->wide + own.from * layer->qkv.out;
        NAMED(adapt)(step, (int)(4 * index), &layer->qkv, at + own.from, at + own.to, normed + own.from * m, qkv, room->inner);
        NAMED(place_heads)(step, layer, at + own.from, at + own.to, qkv);
        espalier_meet(crew);
    }
}

/* What comes behind attention, for the rows that go on. */
static void NAMED(behind)(const struct step *step, long index, int number, int crew, struct scratch *room) {
    const struct model *model = step->model;
    const struct layer *layer = model->layers + index;
    const long m = model->width, f = model->hidden, h = model->heads * model->head_width;
    NUMBER *normed = (NUMBER *)step->normed, *gated = (NUMBER *)step->gated;
    for (long at = 0; at < step->rows; at += BLOCK) {
        const long count = step->rows - at < BLOCK ? step->rows - at : BLOCK;
        const struct share own = share_of(count, 1, number, crew);
        const long from = at + own.from, to = at + own.to;
        const NUMBER *attended = (const NUMBER *)step->attended + at * h;
        NAMED(products)(&layer->out, attended, count, step->narrow, number, crew);
        NAMED(adapt)(step, (int)(4 * index + 1), &layer->out, from, to, attended + own.from * h, step->narrow + own.from * m, room->inner);
        for (long r = own.from; r < own.to; r++) {
            add_row(step->x + (at + r) * m, step->narrow + r * m, m);
            NAMED(norm_row)(step->x + (at + r) * m, layer->mlp_gain, m, model->eps, normed + r * m);
        }
        espalier_meet(crew);
        NAMED(products)(&layer->gate_up, normed, count, step->wide, number, crew);
        NAMED(adapt)(step, (int)(4 * index + 2), &layer->gate_up, from, to, normed + own.from * m, step->wide + own.from * 2 * f, room->inner);
        for (long r = own.from; r < own.to; r++) NAMED(gate_row)(step->wide + r * 2 * f, f, gated + r * f);
        espalier_meet(crew);
        NAMED(products)(&layer->down, gated, count, step->narrow, number, crew);
        NAMED(adapt)(step, (int)(4 * index + 3), &layer->down, from, to, gated + own.from * f, step->narrow + own.from * m, room->inner);
        for (long r = own.from; r < own.to; r++) add_row(step->x + (at + r) * m, step->narrow + r * m, m);
        espalier_meet(crew);
    }
}

/* Attention of all rows: units of (key head, row), rows innermost, so that a shared beginning stays near. */
static void NAMED(attend_all)(const struct step *step, long index, int number, int crew, struct scratch *room) {
    const struct layer *layer = step->model->layers + index;
    const struct share own = share_of(step->rows * step->model->key_heads, 1, number, crew);
    for (long unit = own.from; unit < own.to; unit++)
        NAMED(attend_row)(step, layer, unit % step->rows, unit / step->rows, room->scores, room->sums);
    espalier_meet(crew);
}

/* Logits of the rows that decide. */
static void NAMED(decide)(const struct step *step, int number, int crew, struct scratch *room) {
    const struct model *model = step->model;
    const long m = model->width, v = model->vocabulary;
    NUMBER *normed = (NUMBER *)step->normed;
    for (long at = 0; at < step->rows; at += BLOCK) {
        const long count = step->rows - at < BLOCK ? step->rows - at : BLOCK;
        const struct share own = share_of(count, 1, number, crew);
        for (long r = own.from; r < own.to; r++)
            NAMED(norm_row)(step->x + (at + r) * m, model->final_gain, m, model->eps, normed + r * m);
        espalier_meet(crew);
        float *logits = step->logits + at * v;
        NAMED(products)(&model->head, normed, count, logits, number, crew);
        NAMED(adapt)(step, (int)(4 * model->count), &model->head, at + own.from, at + own.to, normed + own.from * m,
                     logits + own.from * v, room->inner);
        espalier_meet(crew);
    }
}

/* Go on with the deciding rows only; number 0 alone writes, everybody takes the narrower view. */
static void NAMED(narrow)(struct step *step, int number, int crew, struct run *runs) {
    const long m = step->model->width, h = step->model->heads * step->model->head_width;
    if (number == 0)
        for (long i = 0; i < step->decided; i++) {
            const long row = step->deciding[i]; /* ascending: never before what is still to be read */
            memmove(step->x + i * m, step->x + row * m, (size_t)m * sizeof(float));
            memmove((NUMBER *)step->attended + i * h, (NUMBER *)step->attended + row * h, (size_t)h * sizeof(NUMBER));
        }
    narrow_runs(step, runs);
    step->rows = step->decided;
    step->runs = runs;
    espalier_meet(crew);
}

static void NAMED(run_step)(struct step step, int number, int crew, struct scratch *room) {
    const struct model *model = step.model;
    const long m = model->width;
    const struct share own = share_of(step.rows, 1, number, crew);
    for (long r = own.from; r < own.to; r++)
        NAMED(read_row)((const NUMBER *)model->table + step.ids[r] * m, step.x + r * m, m);
    espalier_meet(crew);
    for (long index = 0; index < model->count; index++) {
        NAMED(before)(&step, index, number, crew, room);
        NAMED(attend_all)(&step, index, number, crew, room);
        if (index == model->count - 1) NAMED(narrow)(&step, number, crew, room->runs);
        NAMED(behind)(&step, index, number, crew, room);
    }
    NAMED(decide)(&step, number, crew, room);
}
