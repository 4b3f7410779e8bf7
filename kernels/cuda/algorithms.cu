/* Which of cuBLASLt's algorithms computes a product.
 *
 * The heuristic's candidates are timed once per shape, and the fastest is kept in a file
 * (algorithm_file.h), so that every later run takes the same one: two algorithms may differ in the
 * last bits, so a choice that is timed but not kept would make runs differ. Where nothing can be
 * kept (FEDCOT_ALGO_CACHE=off, a folder that cannot be written) the heuristic's first is taken,
 * which is the same in every run.
 *
 * Sizes are rounded up to eight steps an octave for this: the number of rows of a packed batch
 * changes with every step, and neighbours have the same best algorithm. A kept algorithm is checked
 * against the very shape before it is believed.
 *
 * Only reductions in fp32 are allowed: results are rounded once, and in a fixed order. */
#include "kernels/cuda/products.cuh"

#include <cstdio>
#include <cstring>

enum { CANDIDATES = 8, RUNS = 5 };

/* Rounded up to a multiple of 16, above 128 to eight steps an octave. */
static uint64_t bucket(uint64_t n)
{
    uint64_t step = 16;
    while (step * 16 <= n)
        step *= 2;
    return (n + step - 1) / step * step;
}

static void key_of(char key[FC_ALGORITHM_KEY], const struct fc_cuda_shape *g)
{
    const char *type = g->fp8 ? "fp8" : fc_dtype_name((enum fc_dtype)g->type);
    snprintf(key, FC_ALGORITHM_KEY, "%llux%llux%llu:%s%s:%s-%s%s%s:%llu.%llu.%llu",
             (unsigned long long)bucket(g->m), (unsigned long long)bucket(g->n),
             (unsigned long long)bucket(g->k), g->trans_a ? "t" : "n", g->trans_b ? "t" : "n", type,
             fc_dtype_name((enum fc_dtype)g->y_type), g->beta ? "+" : "", g->bias ? "b" : "",
             (unsigned long long)g->align_a, (unsigned long long)g->align_b,
             (unsigned long long)g->align_y);
}

/* Whether a kept algorithm may be used for this very product. */
static bool believe(struct fc_stream *s, struct fc_cuda_plan *p, const uint64_t *words)
{
    cublasLtMatmulHeuristicResult_t found = {};
    memcpy(&p->algorithm, words, sizeof p->algorithm);
    if (cublasLtMatmulAlgoCheck(s->products->lt, &p->product, &p->b, &p->a, &p->y, &p->y,
                                &p->algorithm, &found) != CUBLAS_STATUS_SUCCESS ||
        found.state != CUBLAS_STATUS_SUCCESS ||
        found.workspaceSize > fc_cuda_plan_workspace(&p->shape))
        return false;
    p->workspace = found.workspaceSize;
    return true;
}

/* cuBLASLt's candidates, best guess first; 0 with or without an error in the stream. */
static int candidates(struct fc_stream *s, struct fc_cuda_plan *p,
                      cublasLtMatmulHeuristicResult_t found[CANDIDATES])
{
    cublasLtMatmulPreferenceOpaque_t wish;
    size_t workspace = fc_cuda_plan_workspace(&p->shape);
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t align[3] = {(uint32_t)p->shape.align_b, (uint32_t)p->shape.align_a,
                         (uint32_t)p->shape.align_y};
    const cublasLtMatmulPreferenceAttributes_t which[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    bool ok =
        FC_LT(s, cublasLtMatmulPreferenceInit(&wish)) &&
        FC_LT(s,
              cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &workspace, sizeof workspace)) &&
        FC_LT(s, cublasLtMatmulPreferenceSetAttribute(
                     &wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme, sizeof scheme));
    for (int i = 0; i < 4 && ok; i++)
        ok = FC_LT(s, cublasLtMatmulPreferenceSetAttribute(&wish, which[i], &align[i < 3 ? i : 2],
                                                           sizeof align[0]));
    int count = 0;
    if (!ok)
        return 0;
    cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(
        s->products->lt, &p->product, &p->b, &p->a, &p->y, &p->y, &wish, CANDIDATES, found, &count);
    if (code == CUBLAS_STATUS_NOT_SUPPORTED)
        return 0;
    int kept = 0;
    for (int i = 0; FC_LT(s, code) && i < count; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS)
            found[kept++] = found[i];
    return kept;
}

static void take(struct fc_cuda_plan *p, const cublasLtMatmulHeuristicResult_t *r)
{
    p->algorithm = r->algo;
    p->workspace = r->workspaceSize;
}

/* Milliseconds of RUNS products, negative where the candidate does not run. */
static float time_plan(struct fc_stream *s, const struct fc_cuda_plan *p,
                       const struct fc_cuda_operands *o, cudaEvent_t start, cudaEvent_t end)
{
    float ms = -1;
    bool ok = fc_cuda_plan_run(s, p, o) && FC_CUDA(s, cudaEventRecord(start, s->stream));
    for (int i = 0; i < RUNS && ok; i++)
        ok = fc_cuda_plan_run(s, p, o);
    ok = ok && FC_CUDA(s, cudaEventRecord(end, s->stream)) &&
         FC_CUDA(s, cudaEventSynchronize(end)) && FC_CUDA(s, cudaEventElapsedTime(&ms, start, end));
    return ok ? ms : -1;
}

/* Leaves the fastest of the candidates in p. False: error in the stream. */
static bool pick_fastest(struct fc_stream *s, struct fc_cuda_plan *p,
                         const struct fc_cuda_operands *o,
                         const cublasLtMatmulHeuristicResult_t *found, int count)
{
    cudaEvent_t start = nullptr, end = nullptr;
    struct fc_cuda_plan trial = *p;
    float best = -1;
    bool ok = FC_CUDA(s, cudaEventCreate(&start)) && FC_CUDA(s, cudaEventCreate(&end));
    for (int i = 0; i < count && ok; i++) {
        take(&trial, &found[i]);
        float ms = time_plan(s, &trial, o, start, end);
        ok = ms >= 0;
        if (ok && (best < 0 || ms < best)) {
            best = ms;
            take(p, &found[i]);
        }
    }
    if (start)
        (void)cudaEventDestroy(start);
    if (end)
        (void)cudaEventDestroy(end);
    return ok;
}

/* The same where y is added to: into another y, so that y itself is added to only once. */
static bool pick_apart(struct fc_stream *s, struct fc_cuda_plan *p,
                       const struct fc_cuda_operands *o,
                       const cublasLtMatmulHeuristicResult_t *found, int count)
{
    struct fc_cuda_operands apart = *o;
    size_t bytes = p->shape.m * p->shape.ldy * fc_dtype_size((enum fc_dtype)p->shape.y_type);
    if (cudaMalloc(&apart.y, bytes) != cudaSuccess) { /* no room: untimed */
        (void)cudaGetLastError();
        return true;
    }
    bool ok = pick_fastest(s, p, &apart, found, count);
    return FC_CUDA(s, cudaFree(apart.y)) && ok;
}

bool fc_cuda_choose(struct fc_stream *s, struct fc_cuda_plan *p, const struct fc_cuda_operands *o)
{
    struct fc_algorithms *known = s->products->algorithms;
    uint64_t words[FC_ALGORITHM_WORDS];
    char key[FC_ALGORITHM_KEY];
    static_assert(sizeof words == sizeof p->algorithm, "an algorithm is kept as it is");
    key_of(key, &p->shape);
    if (fc_algorithms_find(known, key, words) && believe(s, p, words))
        return true;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = candidates(s, p, found);
    p->blocks = count == 0;
    if (count == 0)
        return s->error.code == FC_OK && !p->shape.fp8;
    take(p, &found[0]);
    if (s->recording || !o->y || !fc_algorithms_begin(known)) /* nothing can be timed or kept */
        return true;
    /* Another process may have timed it in the meantime. */
    bool ok = true, there = fc_algorithms_find(known, key, words) && believe(s, p, words);
    if (!there) {
        take(p, &found[0]);
        ok =
            p->shape.beta ? pick_apart(s, p, o, found, count) : pick_fastest(s, p, o, found, count);
        if (ok) {
            memcpy(words, &p->algorithm, sizeof words);
            fc_algorithms_add(known, key, words);
        }
    }
    fc_algorithms_end(known);
    return ok;
}
