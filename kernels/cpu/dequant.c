/* Weights of files expanded to numbers.
 *
 * Floor: reads the blocks (0.56 bytes an element in Q4_0, 1.06 in Q8_0) and writes n elements, one
 * or two FLOPs each. Blocks go to threads in stretches of FC_CPU_CHUNK elements. */
#include "base/dequant.h"
#include "kernels/cpu/cpu.h"

const struct fc_weight_format *fc_cpu_format(struct fc_stream *s, uint32_t type)
{
    const struct fc_weight_format *format = fc_weight_format(type);
    if (!format)
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "weights of type number %u are of no known format",
                (unsigned)type);
    return format;
}

void fc_cpu_dequantise(struct fc_stream *s, void *out, enum fc_dtype dt, const void *blocks,
                       uint32_t type, size_t n)
{
    const struct fc_weight_format *format = fc_cpu_ok(s) ? fc_cpu_format(s, type) : NULL;
    if (!format)
        return;
    size_t each = FC_CPU_CHUNK / format->block, chunks = (n + each - 1) / each;
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, n * format->block))
    for (size_t c = 0; c < chunks; c++) {
        float values[FC_CPU_CHUNK];
        size_t first = c * each, now = fc_cpu_min(each, n - first);
        format->expand(values, (const unsigned char *)blocks + first * format->bytes, now);
        fc_cpu_store(out, first * format->block, values, now * format->block, dt);
    }
}
