/* Row by row in one pass over memory: RMSNorm, rotary positions, gated activations; forward and backward, float32
 * inside, float32 or bfloat16 outside. Widths are multiples of LANES.
 *
 * Flags say which of the arrays are bfloat16; each combination is compiled apart, so nothing is decided per number.
 */
#include "vectors.h"

/* Where a row begins: rows lie in `inner` at `row` apart, these `outer` apart. In numbers. */
struct places { int64_t outer, row; };

/* Mirrored by espalier.nn.kernels.rows: keep the two alike. */
struct norm {
    const void *x, *dy;
    void *y, *dx;       /* dx has x's type and may be dy */
    const float *gain;  /* (width) */
    float *dgain;       /* (width) added to, or NULL */
    struct places x_at, y_at, dx_at; /* y_at: also dy's */
    int64_t rows, width, inner;
    int32_t x_half, y_half; /* y_half: also dy's type */
    float eps;
};

INLINE vec get(const void *from, long i, const int is_half) {
    return is_half ? LOAD((const half *)from + i) : LOAD((const float *)from + i);
}
INLINE void put(void *to, long i, const int is_half, vec x) {
    if (is_half) STORE((half *)to + i, x);
    else STORE((float *)to + i, x);
}
INLINE const void *row_of(const void *from, long i, const int is_half) {
    return is_half ? (const void *)((const half *)from + i) : (const void *)((const float *)from + i);
}

INLINE long place_of(struct places at, long i, long inner) { return i / inner * at.outer + i % inner * at.row; }

/* 1 / rms of a row. */
INLINE float scale_of(const struct norm *a, const void *x, const int x_half) {
    vec squares = {0}, more = {0};
    long j = 0;
    for (; j + LANES < a->width; j += 2 * LANES) {
        const vec one = get(x, j, x_half), two = get(x, j + LANES, x_half);
        squares += one * one;
        more += two * two;
    }
    if (j < a->width) squares += get(x, j, x_half) * get(x, j, x_half);
    return 1.0f / sqrtf(sum_of(squares + more) / (float)a->width + a->eps);
}

INLINE void norm_forward(const struct norm *a, const int x_half, const int y_half) {
    for (long i = 0; i < a->rows; i++) {
        const void *x = row_of(a->x, place_of(a->x_at, i, a->inner), x_half);
        void *y = (void *)row_of(a->y, place_of(a->y_at, i, a->inner), y_half);
        const float scale = scale_of(a, x, x_half);
        for (long j = 0; j < a->width; j += LANES) put(y, j, y_half, get(x, j, x_half) * scale * LOAD(a->gain + j));
    }
}

/* dx = [dx +] (g - unit mean(g unit)) scale, where g = dy gain and unit = x scale. */
INLINE void norm_backward(const struct norm *a, const int x_half, const int y_half, const int add) {
    for (long i = 0; i < a->rows; i++) {
        const void *x = row_of(a->x, place_of(a->x_at, i, a->inner), x_half);
        const void *dy = row_of(a->dy, place_of(a->y_at, i, a->inner), y_half);
        void *dx = (void *)row_of(a->dx, place_of(a->dx_at, i, a->inner), x_half);
        const float scale = scale_of(a, x, x_half);
        vec along = {0}, more = {0};
        long j = 0;
        for (; j + LANES < a->width; j += 2 * LANES) {
            along += get(dy, j, y_half) * LOAD(a->gain + j) * get(x, j, x_half);
            more += get(dy, j + LANES, y_half) * LOAD(a->gain + j + LANES) * get(x, j + LANES, x_half);
        }
        if (j < a->width) along += get(dy, j, y_half) * LOAD(a->gain + j) * get(x, j, x_half);
        const float mean = sum_of(along + more) * scale / (float)a->width;
        for (j = 0; j < a->width; j += LANES) {
            const vec unit = get(x, j, x_half) * scale, given = get(dy, j, y_half);
            vec d = (given * LOAD(a->gain + j) - unit * mean) * scale;
            if (add) d += get(dx, j, x_half);
            put(dx, j, x_half, d);
            if (a->dgain != NULL) STORE(a->dgain + j, LOAD(a->dgain + j) + given * unit);
        }
    }
}

void espalier_norm(const struct norm *a) {
    switch (a->x_half * 2 + a->y_half) {
        case 0: norm_forward(a, 0, 0); return;
        case 1: norm_forward(a, 0, 1); return;
        case 2: norm_forward(a, 1, 0); return;
        case 3: norm_forward(a, 1, 1); return;
    }
}

void espalier_norm_backward(const struct norm *a, int add) {
    switch (a->x_half * 4 + a->y_half * 2 + add) {
        case 0: norm_backward(a, 0, 0, 0); return;
        case 1: norm_backward(a, 0, 0, 1); return;
        case 2: norm_backward(a, 0, 1, 0); return;
        case 3: norm_backward(a, 0, 1, 1); return;
        case 4: norm_backward(a, 1, 0, 0); return;
        case 5: norm_backward(a, 1, 0, 1); return;
        case 6: norm_backward(a, 1, 1, 0); return;
        case 7: norm_backward(a, 1, 1, 1); return;
    }
}

/* --- rotary positions: heads (tokens, heads, width), numbers i and i + turning of each turn together */

struct rotary {
    const void *x;
    void *y; /* contiguous */
    const float *cos, *sin;
    int64_t tokens, heads, width, turning, row, head; /* x's strides */
    int32_t is_half;
    float side; /* 1, or -1 to turn back */
};

INLINE void turn_heads(const struct rotary *a, const int is_half) {
    for (long t = 0; t < a->tokens; t++) {
        const float *cos = a->cos + t * a->turning, *sin = a->sin + t * a->turning;
        for (long h = 0; h < a->heads; h++) {
            const void *x = row_of(a->x, t * a->row + h * a->head, is_half);
            void *y = (void *)row_of(a->y, (t * a->heads + h) * a->width, is_half);
            for (long i = 0; i < a->turning; i += LANES) {
                const vec c = LOAD(cos + i), s = LOAD(sin + i) * a->side;
                const vec low = get(x, i, is_half), high = get(x, i + a->turning, is_half);
                put(y, i, is_half, low * c - high * s);
                put(y, i + a->turning, is_half, high * c + low * s);
            }
            for (long i = 2 * a->turning; i < a->width; i += LANES) put(y, i, is_half, get(x, i, is_half));
        }
    }
}

void espalier_rotate(const struct rotary *a) {
    if (a->is_half) turn_heads(a, 1);
    else turn_heads(a, 0);
}

/* --- gates: both (rows, 2 width), the gate's half first */

struct gate {
    const void *both, *dy;
    void *y, *dboth; /* y NULL: not asked for, backward; dboth may be both */
    int64_t rows, width, both_row, y_row, dy_row, dboth_row; /* strides */
    int32_t is_half, gelu;
};

/* x sigmoid(u) and its slope, where u is x, or for gelu's tanh form 2 sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE vec gate_of(vec x, const int gelu, vec *slope) {
    const vec square = x * x;
    const vec u = gelu ? x * (1.5957691216057308f + 0.07135481282803096f * square) : x;
    const vec steep = gelu ? 1.5957691216057308f + 0.21406443848409288f * square : fill(1.0f);
    const vec e = exp_of(-u), sigmoid = 1.0f / (1.0f + e);
    *slope = sigmoid * (1.0f + x * steep * (e * sigmoid)); /* e sigmoid: 1 - sigmoid without its loss of digits */
    return x * sigmoid;
}

INLINE void gate_rows(const struct gate *a, const int is_half, const int gelu, const int backward) {
    for (long i = 0; i < a->rows; i++) {
        const void *x = row_of(a->both, i * a->both_row, is_half), *z = row_of(x, a->width, is_half);
        const void *dy = backward ? row_of(a->dy, i * a->dy_row, is_half) : NULL;
        void *dx = backward ? (void *)row_of(a->dboth, i * a->dboth_row, is_half) : NULL;
        void *y = a->y == NULL ? NULL : (void *)row_of(a->y, i * a->y_row, is_half);
        for (long j = 0; j < a->width; j += LANES) {
            vec slope;
            const vec gate = gate_of(get(x, j, is_half), gelu, &slope), other = get(z, j, is_half);
            if (!backward || y != NULL) put(y, j, is_half, gate * other);
            if (!backward) continue;
            const vec given = get(dy, j, is_half);
            put(dx, j, is_half, given * other * slope);
            put(dx, j + a->width, is_half, given * gate);
        }
    }
}

void espalier_gate(const struct gate *a, int backward) {
    switch (a->is_half * 4 + a->gelu * 2 + backward) {
        case 0: gate_rows(a, 0, 0, 0); return;
        case 1: gate_rows(a, 0, 0, 1); return;
        case 2: gate_rows(a, 0, 1, 0); return;
        case 3: gate_rows(a, 0, 1, 1); return;
        case 4: gate_rows(a, 1, 0, 0); return;
        case 5: gate_rows(a, 1, 0, 1); return;
        case 6: gate_rows(a, 1, 1, 0); return;
        case 7: gate_rows(a, 1, 1, 1); return;
    }
}
