/* Products in fp8 on the CPU, which has no instructions for them: the oracle of the CUDA twin. It
 * rounds to the very same e4m3 values and sums them in fp32 over ascending k; the order of sums is
 * the only difference.
 *
 * e4m3: sign, 4 bits of exponent (bias 7), 3 of mantissa; subnormals of 2^-9, largest 448, no
 * infinity. */
#include "kernels/cpu/cpu.h"

bool fc_cpu_has_fp8(struct fc_stream *s)
{
    (void)s;
    return false;
}

/* x, of magnitude 448 at most, rounded to the nearest e4m3 value, ties to even. */
static float round_e4m3(float x)
{
    int exponent = -6; /* of the smallest normal: below it steps do not shrink any more */
    if (fabsf(x) >= 0x1p-6f)
        exponent = ilogbf(x);
    float step = ldexpf(1.0f, exponent - 3);
    return rintf(x / step) * step;
}

/* The smallest power of two that brings n elements to 448 or less; NaN where one is not finite. */
static float scale_of(const void *p, size_t n, enum fc_dtype dt)
{
    float most = 0, buffer[FC_CPU_CHUNK];
    for (size_t c = 0; c < n; c += FC_CPU_CHUNK) {
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - c);
        const float *x = fc_cpu_view(buffer, p, c, m, dt);
        for (size_t i = 0; i < m; i++)
            if (!isfinite(x[i]))
                return NAN;
            else if (fabsf(x[i]) > most)
                most = fabsf(x[i]);
    }
    if (most == 0)
        return 1;
    int exponent = ilogbf(most) - 8;
    if (most > ldexpf(448.0f, exponent))
        exponent++;
    return ldexpf(1.0f, exponent < -126 ? -126 : exponent);
}

/* One byte an element: the rounded value's float has its sign, exponent and three bits of mantissa
 * in bits that fit one byte after the exponent is moved. Zero and subnormals are sums of 2^-9. */
static uint8_t encode(float rounded)
{
    uint8_t sign = signbit(rounded) ? 0x80 : 0;
    float a = fabsf(rounded);
    if (a < 0x1p-6f)
        return (uint8_t)(sign | (uint8_t)(a * 0x1p9f));
    uint32_t u;
    memcpy(&u, &a, sizeof u);
    return (uint8_t)(sign | (uint8_t)((u >> 20) - (120u << 3)));
}

static float decode(uint8_t byte)
{
    int exponent = byte >> 3 & 15, mantissa = byte & 7;
    float a = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return byte & 0x80 ? -a : a;
}

static void quantise(struct fc_stream *s, uint8_t *to, const void *from, size_t n, float scale,
                     enum fc_dtype dt)
{
#pragma omp parallel for num_threads(fc_cpu_threads(s, n))
    for (size_t c = 0; c < n; c += FC_CPU_CHUNK) {
        float buffer[FC_CPU_CHUNK];
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - c);
        const float *x = fc_cpu_view(buffer, from, c, m, dt);
        for (size_t i = 0; i < m; i++)
            to[c + i] = isnan(scale) ? 0 : encode(round_e4m3(x[i] / scale));
    }
}

static bool valid(struct fc_stream *s, const struct fc_gemm *g)
{
    bool shape = g->trans_b && !g->trans_a && !g->accumulate && g->lda == g->k && g->ldb == g->k &&
                 g->k % 16 == 0 && g->n % 16 == 0 && g->ldy >= g->n &&
                 g->ldy * fc_dtype_size(g->y_type) % 16 == 0;
    bool types =
        (g->type == FC_F32 || g->type == FC_BF16) && (g->y_type == FC_F32 || g->y_type == g->type);
    if (shape && types)
        return true;
    fc_fail(&s->error, FC_ERR_UNSUPPORTED,
            "gemm_fp8: %s: m %zu, n %zu, k %zu, lda %zu, ldb %zu, ldy %zu, %s to %s",
            shape ? "dtypes that the CPU does not multiply"
                  : "expected a b^T of dense rows, n and k multiples of 16, rows of y of 16 bytes",
            g->m, g->n, g->k, g->lda, g->ldb, g->ldy, fc_dtype_name(g->type),
            fc_dtype_name(g->y_type));
    return false;
}

void fc_cpu_gemm_fp8(struct fc_stream *s, const struct fc_gemm *g, void *scratch)
{
    if (!fc_cpu_ok(s) || g->m == 0 || g->n == 0 || !valid(s, g))
        return;
    float value[256], scale_a = scale_of(g->a, g->m * g->k, g->type);
    float scale_b = scale_of(g->b, g->n * g->k, g->type), scale = scale_a * scale_b;
    uint8_t *a = scratch, *b = a + g->m * g->k;
    quantise(s, a, g->a, g->m * g->k, scale_a, g->type);
    quantise(s, b, g->b, g->n * g->k, scale_b, g->type);
    for (int i = 0; i < 256; i++)
        value[i] = decode((uint8_t)i);
#pragma omp parallel for num_threads(fc_cpu_threads(s, g->m * g->n))
    for (size_t i = 0; i < g->m; i++)
        for (size_t j = 0; j < g->n; j++) {
            float sum = 0, bias = 0;
            for (size_t p = 0; p < g->k; p++)
                sum = fc_cpu_fma(value[a[i * g->k + p]], value[b[j * g->k + p]], sum);
            if (g->bias)
                fc_cpu_load(&bias, g->bias, j, 1, g->type);
            sum = fc_cpu_fma(sum, scale, bias);
            fc_cpu_store(g->y, i * g->ldy + j, &sum, 1, g->y_type);
        }
}
