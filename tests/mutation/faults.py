"""The faults that tests/mutation/mutate.py seeds, one at a time.

A row: the file, a string that occurs in it exactly once, what replaces it, the tests that are to
fail (ctest's names), and the mode of the simulator: plain, race, init or async (mutate.py says what
each sets). Faults are those that are made: a tail off by one, `=` for `+=`, a missing barrier.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: tuple
    mode: str = "plain"


K = "kernels/cuda/"
FAULTS = [
    # ---- embedding.cu
    Fault("embedding-rank-counts-itself", K + "embedding.cu",
          "before += same && first + k < t;", "before += same && first + k <= t;",
          ("cuda/embedding",)),
    Fault("embedding-run-added-by-each", K + "embedding.cu",
          "before == 0 ? equal : 0", "equal - before", ("cuda/embedding",)),
    Fault("embedding-last-row-lost", K + "embedding.cu",
          "for (; j < run; j++)", "for (; j + 1 < run; j++)", ("cuda/embedding",)),
    Fault("embedding-barrier-before-next-tile", K + "embedding.cu",
          "        __syncthreads();\n    }\n    if (t < T) {", "    }\n    if (t < T) {",
          ("cuda/embedding",), "race"),
    # ---- norm.cu
    Fault("norm-eps-forgotten-in-loops", K + "norm.cu",
          "sum = fc_block_sum<FORWARD_THREADS>(sum, partial);\n    float r = rsqrtf(sum / (float)C + eps);",
          "sum = fc_block_sum<FORWARD_THREADS>(sum, partial);\n    float r = rsqrtf(sum / (float)C);",
          ("cuda/norm",)),
    Fault("norm-dx-overwritten", K + "norm.cu",
          "d[j].v[k] = fc_from_float<T>(fc_to_float(d[j].v[k]) + by);",
          "d[j].v[k] = fc_from_float<T>(by);", ("cuda/norm",)),
    Fault("norm-partial-not-doubled", K + "norm.cu",
          "turn ^= 1;\n        float r = rsqrtf", "float r = rsqrtf", ("cuda/norm",), "race"),
    Fault("norm-barrier-between-warps", K + "norm.cu",
          "        __syncthreads();\n        if (group == turn_of)", "        if (group == turn_of)",
          ("cuda/norm",), "race"),
    # ---- rope.cu
    Fault("rope-directions-swapped", K + "rope.cu",
          "backward ? -1.0f : 1.0f", "backward ? 1.0f : -1.0f", ("cuda/rope",)),
    Fault("rope-turns-values-too", K + "rope.cu",
          "(int)(h->nh + h->nkv)", "(int)(h->nh + 2 * h->nkv)", ("cuda/rope",)),
    Fault("rope-in-place-read-late", K + "rope.cu",
          "*high = fc_from_float<T>(y * row[c] + x * sn);",
          "*high = fc_from_float<T>(y * row[c] + fc_to_float(*low) * sn);", ("cuda/rope",)),
    # ---- activation.cu
    Fault("swiglu-slope-of-the-sigmoid", K + "activation.cu",
          "(p + x * p * (1.0f - p))", "(p + x * p * p)", ("cuda/activation",)),
    Fault("swiglu-up-for-gate", K + "activation.cu",
          "u.v[k] = fc_from_float<T>(dy * x * p);", "u.v[k] = fc_from_float<T>(dy * up * p);",
          ("cuda/activation",)),
    # ---- rows.cu
    Fault("bias-slice-loses-a-row", K + "rows.cu",
          "end = (blockIdx.y + 1) * rows / gridDim.y;", "end = (blockIdx.y + 1) * rows / gridDim.y - 1;",
          ("cuda/rows",)),
    Fault("slices-overwrite", K + "rows.cu", "to[c] += total;", "to[c] = total;",
          ("cuda/rows", "cuda/norm")),
    Fault("cast-tail-lost", K + "rows.cu", "if (whole < n)", "if (whole == 0)", ("cuda/rows",)),
    # ---- classifier.cu
    Fault("entropy-sum-not-rescaled", K + "classifier.cu",
          "        r.sum *= exp_below(r.top, top);\n", "", ("cuda/classifier",)),
    Fault("entropy-tail-short", K + "classifier.cu",
          "if (tail + threadIdx.x < V) /* fewer than W */", "if (tail + threadIdx.x + 1 < V)",
          ("cuda/classifier",)),
    Fault("entropy-reads-past-its-cache", K + "classifier.cu",
          "j < room ? reinterpret_cast", "j <= room ? reinterpret_cast", ("cuda/classifier",)),
    Fault("entropy-barrier-of-partials", K + "classifier.cu",
          "        partial[threadIdx.x / 32] = r;\n    __syncthreads();",
          "        partial[threadIdx.x / 32] = r;", ("cuda/classifier",), "race"),
    Fault("entropy-target-added", K + "classifier.cu", "p - g.weight : p", "p + g.weight : p",
          ("cuda/classifier",)),
    # ---- optimizer.cu
    Fault("norm-of-gradients-second-round-lost", K + "optimizer.cu",
          "at < n; at += gridDim.x * PIECE", "at < n; at += n", ("cuda/optimizer",)),
    Fault("all-finite-takes-infinity", K + "optimizer.cu",
          "finite &= fabsf(x[p].v[k]) < INFINITY;", "finite &= fabsf(x[p].v[k]) <= INFINITY;",
          ("cuda/optimizer",)),
    Fault("adamw-correction-of-the-other-moment", K + "optimizer.cu",
          "1.0 / sqrt(1.0 - pow(beta2, t))", "1.0 / sqrt(1.0 - pow(beta1, t))",
          ("cuda/optimizer",)),
    Fault("adamw-draws-start-anew-in-the-tail", K + "optimizer.cu",
          "        k.first += whole;\n", "", ("cuda/optimizer",)),
    # ---- gemm.cu, plans.cu, gemm_blocks.cu
    Fault("packed-columns-not-zeroed", K + "gemm.cu",
          "i < rows_in && j < columns_in ? from", "i < rows_in ? from", ("cuda/gemm_packed",)),
    Fault("packed-last-block-not-padded", K + "gemm.cu",
          "bool out = count == block && w->height", "bool out = w->height", ("cuda/gemm_packed",)),
    Fault("gemm-bias-overwritten", K + "gemm.cu",
          "        shape.beta = 1;\n", "        shape.beta = 0;\n", ("cuda/gemm",)),
    Fault("gemm-empty-sum-left-as-it-was", K + "gemm.cu",
          "else if (!g->accumulate)\n", "else if (g->accumulate)\n", ("cuda/gemm",)),
    Fault("gemm-alignment-promised-too-high", K + "products.cuh",
          "return a & (~a + 1);", "return a ? FC_CUDA_MAX_ALIGN : 1;", ("cuda/gemm",)),
    Fault("gemm-rows-of-a-and-b-swapped", K + "plans.cu",
          "in, g->trans_a ? g->k : g->m, g->trans_a ? g->m : g->k,",
          "in, g->trans_a ? g->m : g->k, g->trans_a ? g->k : g->m,", ("cuda/gemm",)),
    Fault("gemm-blocks-barrier-before-next-step", K + "gemm_blocks.cu",
          "        __syncthreads();\n    }\n#pragma unroll", "    }\n#pragma unroll",
          ("cuda/gemm_fallback",), "race"),
    Fault("gemm-blocks-tail-of-k", K + "gemm_blocks.cu",
          "at + (size_t)p < k;", "at + (size_t)p <= k;", ("cuda/gemm_fallback",)),
    # ---- fp8.cu, algorithm_file.c, runtime.cu
    Fault("fp8-scale-one-step-high", K + "fp8.cu",
          "> 0x600000u", ">= 0x600000u", ("cuda/fp8",)),
    Fault("fp8-padding-read", K + "fp8.cu",
          "if (v < vectors) {", "if (v < vectors_to) {", ("cuda/fp8",)),
    Fault("fp8-infinity-saturates", K + "fp8.cu",
          "if (bits >= 0x7f800000u)", "if (bits > 0x7f800000u)", ("cuda/fp8",)),
    Fault("algorithms-checksum-ignored", K + "algorithm_file.c",
          " || sum != checksum(text, (size_t)(last + 1 - text)))", ")", ("cuda/algorithms",)),
    Fault("event-not-waited-for", K + "runtime.cu",
          "FC_CUDA(s, cudaStreamWaitEvent(s->stream, e->event, 0));", "(void)e;",
          ("cuda/runtime",), "async"),
]
