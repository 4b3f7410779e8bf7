/* The measured ceilings, in every dtype that the device takes. */
#include "bench/bench.h"

enum fc_code fc_case_gemm(struct fc_bench_context *c, struct fc_error *err)
{
    double flops;
    enum fc_code code = fc_bench_peak(c, FC_F32, &flops, err);
    if (code == FC_OK)
        code = fc_bench_peak(c, FC_BF16, &flops, err);
    if (code == FC_OK && c->dev.k->takes_f16)
        code = fc_bench_peak(c, FC_F16, &flops, err);
    return code;
}
