/* The table of the CPU back end. */
#include "kernels/cpu/cpu.h"

const struct fc_kernels fc_kernels_cpu = {
    .name = "cpu",

    .stream_open = fc_cpu_stream_open,
    .stream_close = fc_cpu_stream_close,
    .alloc = fc_cpu_alloc,
    .free = fc_cpu_free,
    .upload = fc_cpu_upload,
    .download = fc_cpu_download,
    .copy = fc_cpu_copy,
    .zero = fc_cpu_zero,
    .sync = fc_cpu_sync,
    .has_fast = fc_cpu_has_fast,

    .device_count = fc_cpu_device_count,
    .describe = fc_cpu_describe,
    .host_alloc = fc_cpu_host_alloc,
    .host_free = fc_cpu_host_free,
    .copy_stream_open = fc_cpu_copy_stream_open,
    .event_open = fc_cpu_event_open,
    .event_close = fc_cpu_event_close,
    .event_record = fc_cpu_event_record,
    .event_wait = fc_cpu_event_wait,
    .event_sync = fc_cpu_event_sync,
    .graph_begin = fc_cpu_graph_begin,
    .graph_end = fc_cpu_graph_end,
    .graph_launch = fc_cpu_graph_launch,
    .graph_free = fc_cpu_graph_free,
    .range_push = fc_cpu_range_push,
    .range_pop = fc_cpu_range_pop,

    .gemm = fc_cpu_gemm,
    .pack = fc_cpu_pack,
    .unpack = fc_cpu_unpack,
    .gemm_packed = fc_cpu_gemm_packed,

    .has_fp8 = fc_cpu_has_fp8,
    .gemm_fp8 = fc_cpu_gemm_fp8,

    .dequantise = fc_cpu_dequantise,
    .quantised_open = fc_cpu_quantised_open,
    .quantised_close = fc_cpu_quantised_close,
    .gemm_quantised = fc_cpu_gemm_quantised,
    .embed_quantised = fc_cpu_embed_quantised,

    .embed_forward = fc_cpu_embed_forward,
    .embed_backward = fc_cpu_embed_backward,

    .rmsnorm_forward = fc_cpu_rmsnorm_forward,
    .rmsnorm_backward = fc_cpu_rmsnorm_backward,
    .layernorm_forward = fc_cpu_layernorm_forward,
    .layernorm_backward = fc_cpu_layernorm_backward,

    .rope = fc_cpu_rope,

    .attention_forward = fc_cpu_attention_forward,
    .attention_backward = fc_cpu_attention_backward,

    .cache_write = fc_cpu_cache_write,
    .paged_attention = fc_cpu_paged_attention,

    .swiglu_forward = fc_cpu_swiglu_forward,
    .swiglu_backward = fc_cpu_swiglu_backward,
    .ungated_forward = fc_cpu_ungated_forward,
    .ungated_backward = fc_cpu_ungated_backward,

    .bias_forward = fc_cpu_bias_forward,
    .bias_backward = fc_cpu_bias_backward,
    .gather_rows = fc_cpu_gather_rows,
    .scatter_rows = fc_cpu_scatter_rows,
    .cast = fc_cpu_cast,

    .cross_entropy = fc_cpu_cross_entropy,

    .sample = fc_cpu_sample,
    .select_smallest = fc_cpu_select_smallest,
    .draw = fc_cpu_draw,

    .sum_squares = fc_cpu_sum_squares,
    .all_finite = fc_cpu_all_finite,
    .adamw = fc_cpu_adamw,
};
