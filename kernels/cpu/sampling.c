/* Choosing from logits: one token by temperature, top-k and top-p, or the m smallest of a row.
 *
 * Nothing is ever sorted but the m results of select_smallest. What top-k and top-p leave is all
 * values above a limit and the first few, by id, of those equal to it; so both are one search: the
 * largest weights first, where is `target` reached? For top-k every weight is 1, for top-p it is
 * exp((x - max) / temperature). The search is a radix select: floats as integers that order alike,
 * 11 + 11 + 10 bits, one pass each with a histogram of weights.
 *
 * Floor: reading V floats, 20 us for V = 49,152 from memory, once. The first pass takes the maxima
 * of up to 1,024 blocks of the row; a lower bound of the limit lets the later passes skip the
 * blocks whose maximum is below it. For top-k that bound is the k-th largest block maximum; for
 * top-p it is the nearest of some fixed distances from the maximum that covers the mass.
 *
 * Everything about a row is summed by one thread in one order; rows go to threads.
 *
 * Measured, one Zen 4 core, us per row of 49,152: greedy 15, top-k 40 with top-p 58, temperature
 * alone 101, top-p 0.9 alone 370 (6 passes that weigh); 20 smallest of 11,000: 19. The loops that
 * weigh must vectorise: as one loop with a branch for weight 1 they did not, and took three
 * to five times as long.
 */
#include "base/philox.h"
#include "kernels/cpu/cpu.h"

enum {
    BLOCKS = 1024, /* most blocks of a row */
    LANES = 16,    /* a block is a multiple of this long, but for the last of a row */
    CHUNK = 256,   /* values weighed at a time */
    BINS = 2048,   /* of a digit of 11 bits */
    DISTANCES = 6
};

/* Orders like the float, -0 as 0; NaN is below everything. */
static inline uint32_t key_of(float x)
{
    uint32_t u;
    x += 0.0f; /* -0 + 0 = 0 */
    memcpy(&u, &x, sizeof u);
    uint32_t key = u & 0x80000000u ? ~u : u | 0x80000000u;
    return (u & 0x7fffffffu) > 0x7f800000u ? 0 : key;
}

/* A value that has this key. */
static inline float float_of(uint32_t key)
{
    uint32_t u = key & 0x80000000u ? key ^ 0x80000000u : ~key;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* The kept values: keys above `key`, and the first `ties` (by id) of those equal to it. */
struct limit {
    uint32_t key;
    size_t ties;
};

static const struct limit no_limit = {0, SIZE_MAX};

/* A row and the maxima of its blocks of `step` values. */
struct row {
    const float *x;
    size_t V, step, blocks;
    float sign; /* -1: smallest values first */
    float max[BLOCKS];
};

/* How much a value counts: 1, or exp((x - max) * inverse) with inverse = 1 / temperature. */
struct weight {
    bool ones;
    float max, inverse;
};

static const struct weight count = {.ones = true};

/* NaN is never larger than anything: a block (row) of nothing but NaN has maximum -inf. */
static float largest(const float *x, size_t n, float sign)
{
    float top[LANES];
    size_t i = 0;
    for (size_t l = 0; l < LANES; l++)
        top[l] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            top[l] = sign * x[i + l] > top[l] ? sign * x[i + l] : top[l];
    for (; i < n; i++)
        top[0] = sign * x[i] > top[0] ? sign * x[i] : top[0];
    for (size_t l = 1; l < LANES; l++)
        top[0] = top[l] > top[0] ? top[l] : top[0];
    return top[0];
}

static void row_open(struct row *r, const float *x, size_t V, float sign)
{
    r->x = x;
    r->V = V;
    r->sign = sign;
    r->step = ((V + BLOCKS - 1) / BLOCKS + LANES - 1) / LANES * LANES;
    r->blocks = (V + r->step - 1) / r->step;
    for (size_t b = 0; b < r->blocks; b++)
        r->max[b] = largest(x + b * r->step, fc_cpu_min(r->step, V - b * r->step), sign);
}

/* A value equal to the maximum weighs 1 even where both are infinite; NaN and -inf weigh nothing.
 */
static inline float weight_of(const struct weight *how, float x)
{
    float e = fc_cpu_exp((x - how->max) * how->inverse);
    e = x == how->max ? 1.0f : e;
    return x > -INFINITY ? e : 0.0f;
}

static void keys_of(uint32_t *restrict key, const float *restrict x, size_t n, float sign)
{
#pragma omp simd
    for (size_t j = 0; j < n; j++)
        key[j] = key_of(sign * x[j]);
}

static void weigh(float *restrict w, const float *restrict x, size_t n, const struct weight *how)
{
    struct weight local = *how;
    if (local.ones) {
        for (size_t j = 0; j < n; j++)
            w[j] = 1.0f;
        return;
    }
#pragma omp simd
    for (size_t j = 0; j < n; j++)
        w[j] = weight_of(&local, x[j]);
}

/* n values from id i with their weights and keys; false ends the walk. w may be changed. */
typedef bool visit_fn(void *context, size_t i, size_t n, float *w, const uint32_t *key);

/* Visits all values whose key may be `floor` or more, in the order of ids, CHUNK at a time. */
static void walk(const struct row *r, const struct weight *how, uint32_t floor, visit_fn *visit,
                 void *context)
{
    float w[CHUNK];
    uint32_t key[CHUNK];
    for (size_t b = 0; b < r->blocks; b++) {
        if (key_of(r->max[b]) < floor)
            continue;
        size_t end = fc_cpu_min((b + 1) * r->step, r->V);
        for (size_t i = b * r->step; i < end; i += CHUNK) {
            size_t n = fc_cpu_min(CHUNK, end - i);
            keys_of(key, r->x + i, n, r->sign);
            weigh(w, r->x + i, n, how);
            if (!visit(context, i, n, w, key))
                return;
        }
    }
}

/* ---- where is a weight reached? ------------------------------------------------------------- */

struct search {
    struct limit outer;     /* what an earlier search left */
    uint32_t floor;         /* lower bound of the answer */
    uint32_t prefix, fixed; /* the bits of the answer found so far, and their mask */
    int shift;              /* of the digit now counted */
    uint32_t mask;          /* and its bits */
    double weight[BINS];
};

static bool count_digit(void *context, size_t i, size_t n, float *w, const uint32_t *key)
{
    struct search *s = context;
    uint32_t floor = s->floor > s->outer.key ? s->floor : s->outer.key;
    (void)i;
    for (size_t j = 0; j < n; j++) {
        uint32_t k = key[j];
        if (k >= floor && (k & s->fixed) == s->prefix)
            s->weight[(k >> s->shift) & s->mask] += (double)w[j];
    }
    return true;
}

/* Takes bins from the highest down until *above, the weight of all larger keys, and the bin reach
 * `target`; returns the bin, or the last with any weight (rounding may leave the target out of
 * reach), or -1 if there is none. */
static int take_bins(const struct search *s, double target, double *above)
{
    int last = -1;
    double before = *above;
    for (int bin = (int)s->mask; bin >= 0; bin--) {
        if (s->weight[bin] == 0.0)
            continue;
        last = bin;
        *above = before;
        before += s->weight[bin];
        if (before >= target)
            break;
    }
    return last;
}

/* The smallest set of first values whose weights reach `target`, within `outer`; all of outer if
 * they do not. The answer's key must be known to be `floor` or more. The values of outer's own key
 * are all counted: it is the last to be reached, and how many of them are kept is bounded below. */
static struct limit find_limit(const struct row *r, const struct weight *how, double target,
                               struct limit outer, uint32_t floor)
{
    static const struct {
        int shift;
        uint32_t mask;
    } digits[] = {{21, 0x7ff}, {10, 0x7ff}, {0, 0x3ff}};
    struct search s = {.outer = outer, .floor = floor};
    double above = 0.0;
    for (size_t d = 0; d < sizeof digits / sizeof *digits; d++) {
        s.shift = digits[d].shift;
        s.mask = digits[d].mask;
        memset(s.weight, 0, sizeof s.weight);
        walk(r, how, floor > s.prefix ? floor : s.prefix, count_digit, &s);
        int bin = take_bins(&s, target, &above);
        if (bin < 0)
            return outer;
        s.prefix |= (uint32_t)bin << s.shift;
        s.fixed |= s.mask << s.shift;
    }
    /* All values of one key weigh the same: how many of them are needed? */
    double one = how->ones ? 1.0 : (double)weight_of(how, r->sign * float_of(s.prefix));
    double needed = ceil((target - above) / one);
    size_t ties = needed > 1.0 ? (size_t)fmin(needed, (double)r->V) : 1;
    if (s.prefix == outer.key)
        ties = fc_cpu_min(ties, outer.ties);
    return (struct limit){s.prefix, ties};
}

/* A key that at least n values of the row reach (n >= 1): the n-th largest maximum of a block. */
static uint32_t floor_of(const struct row *r, size_t n)
{
    if (n > r->blocks)
        return 0;
    struct row tops;
    row_open(&tops, r->max, r->blocks, 1.0f);
    uint32_t key = find_limit(&tops, &count, (double)n, no_limit, 0).key;
    return key > key_of(-INFINITY) ? key : 0; /* a block of NaN alone has maximum -inf, too */
}

static struct limit find_first(const struct row *r, size_t n)
{
    return find_limit(r, &count, (double)n, no_limit, floor_of(r, n));
}

/* ---- one token ------------------------------------------------------------------------------ */

/* Weights of the values within a limit: their sum, and where `target` falls on it. */
struct draw {
    struct limit limit;
    size_t ties;
    double sum, target;
    size_t id;
};

/* Zeroes the weights of values outside the limit and returns the sum of the rest: one order, so
 * that both walks of a draw see the same partial sums. */
static double keep(struct draw *d, size_t n, float *w, const uint32_t *key)
{
    uint32_t limit = d->limit.key;
    double sum = 0.0;
    uint32_t tie = 0;
#pragma omp simd reduction(| : tie)
    for (size_t j = 0; j < n; j++) {
        tie |= key[j] == limit ? 1u : 0u;
        w[j] = key[j] < limit ? 0.0f : w[j];
    }
    for (size_t j = 0; tie && j < n; j++)
        if (key[j] == limit) {
            w[j] = d->ties ? w[j] : 0.0f;
            d->ties -= d->ties > 0;
        }
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < n; j++)
        sum += (double)w[j];
    return sum;
}

static bool add_up(void *context, size_t i, size_t n, float *w, const uint32_t *key)
{
    struct draw *d = context;
    (void)i;
    d->sum += keep(d, n, w, key);
    return true;
}

static bool find_id(void *context, size_t i, size_t n, float *w, const uint32_t *key)
{
    struct draw *d = context;
    double before = d->sum;
    d->sum += keep(d, n, w, key);
    if (!(d->sum > d->target))
        return true;
    for (size_t j = 0; j < n; j++)
        if (w[j] > 0.0f) {
            d->id = i + j; /* the last one, should rounding hide the target */
            before += (double)w[j];
            if (before > d->target)
                break;
        }
    return false;
}

static double kept_weight(const struct row *r, const struct weight *how, struct limit limit)
{
    struct draw d = {.limit = limit, .ties = limit.ties};
    walk(r, how, limit.key, add_up, &d);
    return d.sum;
}

/* Weights of the values not further than some distances (in units of temperature) from the
 * maximum. */
struct masses {
    uint32_t floor[DISTANCES];
    double sum[DISTANCES];
};

static bool add_masses(void *context, size_t i, size_t n, float *w, const uint32_t *key)
{
    struct masses *m = context;
    (void)i;
    for (int d = 0; d < DISTANCES; d++) {
        uint32_t floor = m->floor[d];
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < n; j++)
            sum += key[j] < floor ? 0.0f : w[j];
        m->sum[d] += (double)sum;
    }
    return true;
}

/* The limit of top-p where top-k set none. The values near the maximum usually hold the mass: those
 * further away need not be searched. */
static struct limit find_mass(const struct row *r, const struct weight *how, float top_p)
{
    static const float distances[DISTANCES] = {1.0f, 3.0f, 6.0f, 10.0f, 15.0f, INFINITY};
    struct masses m = {0};
    for (int d = 0; d < DISTANCES; d++)
        m.floor[d] = key_of(how->max - distances[d] / how->inverse);
    walk(r, how, 0, add_masses, &m);
    double target = (double)top_p * m.sum[DISTANCES - 1];
    int d = 0;
    while (m.sum[d] < target)
        d++;
    return find_limit(r, how, target, no_limit, m.floor[d]);
}

static int32_t draw_token(const struct row *r, const struct fc_sampling *how, float max)
{
    struct weight weight = {.max = max, .inverse = 1.0f / how->temperature};
    struct limit limit = no_limit;
    if (how->top_k > 0 && how->top_k < r->V)
        limit = find_first(r, how->top_k);
    if (how->top_p < 1.0f)
        limit = how->top_k > 0 && how->top_k < r->V
                    ? find_limit(r, &weight, (double)how->top_p * kept_weight(r, &weight, limit),
                                 limit, limit.key)
                    : find_mass(r, &weight, how->top_p);
    double u = (double)fc_philox_uniform(how->seed, how->stream, how->position);
    struct draw d = {.limit = limit, .ties = limit.ties};
    d.target = u * kept_weight(r, &weight, limit);
    walk(r, &weight, limit.key, find_id, &d);
    return (int32_t)d.id;
}

/* The lowest id with the largest value. */
static int32_t first_largest(const struct row *r, float max)
{
    for (size_t b = 0; b < r->blocks; b++)
        for (size_t i = b * r->step; r->max[b] == max && i < r->V; i++)
            if (r->x[i] == max)
                return (int32_t)i;
    return 0;
}

void fc_cpu_sample(struct fc_stream *s, int32_t *ids, const float *logits,
                   const struct fc_sampling *how, size_t n, size_t V)
{
    if (!fc_cpu_ok(s))
        return;
    int threads = fc_cpu_threads(s, n * V);
    size_t broken = n; /* first row that has no token to choose */
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(min : broken)
    for (size_t i = 0; i < n; i++) {
        struct row r;
        row_open(&r, logits + i * V, V, 1.0f);
        float max = largest(r.max, r.blocks, 1.0f);
        if (max == -INFINITY) {
            ids[i] = 0;
            broken = fc_cpu_min(broken, i);
        } else {
            ids[i] =
                how[i].temperature > 0.0f ? draw_token(&r, &how[i], max) : first_largest(&r, max);
        }
    }
    if (broken < n)
        fc_fail(&s->error, FC_ERR_INPUT,
                "sample: every logit of row %zu is NaN or -inf: the model's weights are broken",
                broken);
}

/* ---- the m smallest ------------------------------------------------------------------------- */

struct gather {
    struct limit limit;
    int32_t *idx;
    size_t n;
};

static bool gather_ids(void *context, size_t i, size_t n, float *w, const uint32_t *key)
{
    struct gather *g = context;
    (void)w;
    for (size_t j = 0; j < n; j++) {
        if (key[j] < g->limit.key || (key[j] == g->limit.key && g->limit.ties == 0))
            continue;
        g->limit.ties -= key[j] == g->limit.key;
        g->idx[g->n++] = (int32_t)(i + j);
    }
    return true;
}

/* Whether id a comes behind id b: a larger score, or an equal one and a larger id. */
static bool behind(const float *scores, int32_t a, int32_t b)
{
    uint32_t ka = key_of(-scores[a]), kb = key_of(-scores[b]);
    return ka < kb || (ka == kb && a > b);
}

static void sift_down(const float *scores, int32_t *heap, size_t root, size_t n)
{
    int32_t id = heap[root];
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && behind(scores, heap[child + 1], heap[child]))
            child++;
        if (!behind(scores, heap[child], id))
            break;
        heap[root] = heap[child];
    }
    heap[root] = id;
}

static void sort_ids(const float *scores, int32_t *ids, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(scores, ids, i, n);
    for (size_t i = n; i-- > 1;) {
        int32_t last = ids[0];
        ids[0] = ids[i];
        ids[i] = last;
        sift_down(scores, ids, 0, i);
    }
}

void fc_cpu_select_smallest(struct fc_stream *s, int32_t *idx, const float *scores, size_t n,
                            size_t V, size_t m)
{
    if (!fc_cpu_ok(s) || m == 0)
        return;
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, n *V))
    for (size_t i = 0; i < n; i++) {
        struct row r;
        row_open(&r, scores + i * V, V, -1.0f);
        struct gather g = {.limit = find_first(&r, m), .idx = idx + i * m};
        walk(&r, &count, g.limit.key, gather_ids, &g);
        sort_ids(r.x, g.idx, m);
    }
}
