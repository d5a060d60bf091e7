/* Log-probabilities of chosen classes from rows of logits, and the gradient of their weighted sum in the logits' place.
 *
 * Two passes over a row: its log-sum-exp (block by block against the largest so far; Milakov and Gimelshein 2018, arXiv
 * 1805.02867), then the gradient. A logit z stands for cap(scale (z + bias)), where cap(x) = softcap tanh(x / softcap).
 */
#include "vectors.h"

#define BLOCK (32 * LANES)
#define FAR (-1e30f)

/* Mirrored by espalier.nn.kernels.logits. */
struct logits {
    void *z;                /* (rows, classes), used up where a gradient is written */
    const float *bias;      /* (classes) or NULL */
    const int64_t *targets; /* (rows, picks) */
    const float *weights;   /* (rows, picks), or NULL: no gradient */
    float *logp;            /* (rows, picks) or NULL */
    int64_t rows, classes, row, picks; /* row: z's stride */
    int32_t is_half;
    float softcap, scale; /* softcap 0: none */
};

/* `n` logits from j on, those beyond the last class FAR; `plain` says there is nothing but z. */
INLINE vec logit_of(const struct logits *a, const void *z, long j, long n, const int is_half, const int plain,
                    vec *slope) {
    vec x;
    if (n >= LANES) {
        x = is_half ? LOAD((const half *)z + j) : LOAD((const float *)z + j);
    } else {
        float part[LANES] = {0};
        for (long i = 0; i < n; i++)
            part[i] = is_half ? widen((halves){0} + ((const half *)z)[j + i])[0] : ((const float *)z)[j + i];
        x = LOAD(part);
    }
    if (!plain) {
        if (a->bias != NULL) {
            if (n >= LANES) x += LOAD(a->bias + j);
            else for (long i = 0; i < n; i++) x[i] += a->bias[j + i];
        }
        x *= a->scale;
        *slope = fill(a->scale);
        if (a->softcap > 0) {
            const vec tangent = tanh_of(x / a->softcap);
            *slope = a->scale * (1.0f - tangent * tangent);
            x = a->softcap * tangent;
        }
    }
    return n >= LANES ? x : between(0, n, x, fill(FAR));
}

INLINE float log_sum(const struct logits *a, const void *z, const int is_half, const int plain) {
    float top = FAR, sum = 0;
    vec slope;
    for (long from = 0; from < a->classes; from += BLOCK) {
        const long to = from + BLOCK < a->classes ? from + BLOCK : a->classes;
        vec most = fill(FAR), sums[2] = {{0}, {0}};
        float values[BLOCK];
        for (long j = from; j < to; j += LANES) {
            const vec x = logit_of(a, z, j, to - j, is_half, plain, &slope);
            if (!plain) STORE(values + j - from, x);
            most = larger(most, x);
        }
        const float here = largest_of(most);
        if (here > top) {
            sum *= expf(top - here);
            top = here;
        }
        for (long j = from; j < to; j += LANES) {
            const float *kept = values + j - from;
            const vec x = plain ? logit_of(a, z, j, to - j, is_half, plain, &slope) : LOAD(kept);
            sums[j / LANES % 2] += exp_of(x - top);
        }
        sum += sum_of(sums[0] + sums[1]);
    }
    return top + logf(sum);
}

INLINE void gradient(const struct logits *a, void *z, float lse, float weight, const int is_half, const int plain) {
    for (long j = 0; j < a->classes; j += LANES) {
        vec slope = fill(1.0f);
        const long n = a->classes - j;
        vec d = weight * exp_of(logit_of(a, z, j, n, is_half, plain, &slope) - lse);
        if (!plain) d *= slope;
        if (n >= LANES) {
            if (is_half) STORE((half *)z + j, d);
            else STORE((float *)z + j, d);
        } else if (is_half) {
            const halves tail = narrow(d);
            for (long i = 0; i < n; i++) ((half *)z)[j + i] = tail[i];
        } else {
            for (long i = 0; i < n; i++) ((float *)z)[j + i] = d[i];
        }
    }
}

/* One class alone: its logit and slope. */
INLINE float pick(const struct logits *a, const void *z, long j, const int is_half, float *slope) {
    struct logits one = *a;
    vec slopes = fill(1.0f);
    if (one.bias != NULL) one.bias += j;
    const void *at = is_half ? (const void *)((const half *)z + j) : (const void *)((const float *)z + j);
    const float x = logit_of(&one, at, 0, 1, is_half, 0, &slopes)[0];
    *slope = slopes[0];
    return x;
}

/* The picked classes' own part of the gradient. `values` and `slopes` are theirs before z was used up. */
INLINE void place_picks(const struct logits *a, void *z, long i, float lse, float weight, const float *values,
                        const float *slopes, const int is_half) {
    const int64_t *targets = a->targets + i * a->picks;
    const float *weights = a->weights + i * a->picks;
    for (long k = 0; k < a->picks; k++) {
        float own = 0; /* a class may be picked more than once */
        for (long other = 0; other < a->picks; other++) own += targets[other] == targets[k] ? weights[other] : 0;
        const float d = (weight * exp_of(fill(values[k] - lse))[0] - own) * slopes[k];
        if (is_half) ((half *)z)[targets[k]] = narrow(fill(d))[0];
        else ((float *)z)[targets[k]] = d;
    }
}

INLINE void each_row(const struct logits *a, float *values, float *slopes, const int is_half, const int plain) {
    for (long i = 0; i < a->rows; i++) {
        void *z = is_half ? (void *)((half *)a->z + i * a->row) : (void *)((float *)a->z + i * a->row);
        const float lse = log_sum(a, z, is_half, plain);
        float weight = 0;
        for (long k = 0; k < a->picks; k++) {
            values[k] = pick(a, z, a->targets[i * a->picks + k], is_half, slopes + k);
            if (a->logp != NULL) a->logp[i * a->picks + k] = values[k] - lse;
            if (a->weights != NULL) weight += a->weights[i * a->picks + k];
        }
        if (a->weights == NULL) continue;
        gradient(a, z, lse, weight, is_half, plain);
        place_picks(a, z, i, lse, weight, values, slopes, is_half);
    }
}

/* Returns 0, or 1 where there is no memory. */
int espalier_logits(const struct logits *a) {
    const int plain = a->bias == NULL && a->scale == 1.0f && a->softcap == 0;
    float *kept = malloc((size_t)(2 * a->picks + 1) * sizeof(float));
    if (kept == NULL) return 1;
    if (a->is_half && plain) each_row(a, kept, kept + a->picks, 1, 1);
    else if (a->is_half) each_row(a, kept, kept + a->picks, 1, 0);
    else if (plain) each_row(a, kept, kept + a->picks, 0, 1);
    else each_row(a, kept, kept + a->picks, 0, 0);
    free(kept);
    return 0;
}

/* Of each row of floats: the first of its largest, and whether all are finite. */
void espalier_survey(const float *z, int64_t rows, int64_t classes, int64_t row, int64_t *best, uint8_t *sound) {
    for (long r = 0; r < rows; r++, z += row) {
        vec most = fill(-INFINITY);
        ints wild = {0};
        float largest;
        long j = 0, at = 0;
        for (; j + LANES <= classes; j += LANES) {
            const vec x = LOAD(z + j);
            most = larger(most, x);
            wild |= ((ints)x & 0x7f800000) == 0x7f800000;
        }
        largest = largest_of(most);
        int is_wild = 0;
        for (int i = 0; i < LANES; i++) is_wild |= wild[i];
        for (; j < classes; j++) {
            is_wild |= !isfinite(z[j]);
            if (z[j] > largest) largest = z[j];
        }
        while (!is_wild && at < classes && z[at] != largest) at++;
        best[r] = at;
        sound[r] = !is_wild;
    }
}
