/* The instructions of the tensor-core kernels: mma.sync m16n8k16, ldmatrix, cp.async (PTX ISA,
 * "Matrix Fragments for mma.m16n8k16" and "ldmatrix"), for bf16 and fp16 with fp32 sums.
 *
 * Fragments, with g = lane / 4 and t = lane % 4; a register holds two neighbours:
 *   A [16 x 16]: a0 (row g, columns 2t, 2t+1), a1 (row g+8), a2 (row g, columns +8), a3 (both)
 *   B [16 x 8]:  b0 (rows 2t, 2t+1, column g), b1 (rows +8)
 *   C [16 x 8]:  c0, c1 (row g, columns 2t, 2t+1), c2, c3 (row g+8)
 * So two neighbouring C tiles, rounded, are the A fragment of the next product: no exchange.
 */
#ifndef FC_KERNELS_CUDA_MMA_CUH
#define FC_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/launch.cuh"

__device__ __forceinline__ uint32_t fc_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Four 8 x 8 matrices of 16-bit elements: lane l names row l % 8 of matrix l / 8, and gets of each
 * row l / 4, columns 2 (l % 4) and the next. */
__device__ __forceinline__ void fc_ldmatrix(uint32_t (&r)[4], uint32_t shared)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

/* The same, each matrix transposed: column l / 4, rows 2 (l % 4) and the next. */
__device__ __forceinline__ void fc_ldmatrix_trans(uint32_t (&r)[4], uint32_t shared)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

/* c += a b. The first argument names the type. */
__device__ __forceinline__ void fc_mma(const __nv_bfloat16 *, float (&c)[4], const uint32_t (&a)[4],
                                       uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void fc_mma(const __half *, float (&c)[4], const uint32_t (&a)[4],
                                       uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two floats rounded to T, the first in the low half. */
__device__ __forceinline__ uint32_t fc_pack(const __nv_bfloat16 *, float x, float y)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&pair);
}
__device__ __forceinline__ uint32_t fc_pack(const __half *, float x, float y)
{
    __half2 pair = __floats2half2_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&pair);
}

/* Copies 16 bytes (past L1), or writes zeros where there is nothing to copy; `from` must be a valid
 * address either way. The data is there after fc_cp_async_wait and a barrier. */
__device__ __forceinline__ void fc_cp_async16(uint32_t shared, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void fc_cp_async4(uint32_t shared, const void *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
}

/* Waits for all copies of this thread. */
__device__ __forceinline__ void fc_cp_async_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* 2^x, results below 2^-126 are 0: one instruction, where exp2f needs four. */
__device__ __forceinline__ float fc_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
