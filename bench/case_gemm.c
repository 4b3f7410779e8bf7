/* The measured ceilings. */
#include "bench/bench.h"

enum fc_code fc_case_gemm(struct fc_bench_context *c, struct fc_error *err)
{
    double flops;
    enum fc_code code = fc_bench_peak(c, FC_F32, &flops, err);
    return code == FC_OK ? fc_bench_peak(c, FC_BF16, &flops, err) : code;
}
