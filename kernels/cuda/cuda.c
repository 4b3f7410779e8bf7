/* The table of the CUDA back end. */
#include "kernels/cuda/cuda.h"

const struct fc_kernels fc_kernels_cuda = {
    .name = "cuda",
    .takes_f16 = true,

    .stream_open = fc_cuda_stream_open,
    .stream_close = fc_cuda_stream_close,
    .alloc = fc_cuda_alloc,
    .free = fc_cuda_free,
    .upload = fc_cuda_upload,
    .download = fc_cuda_download,
    .copy = fc_cuda_copy,
    .zero = fc_cuda_zero,
    .sync = fc_cuda_sync,
    .has_fast = fc_cuda_has_fast,

    .device_count = fc_cuda_device_count,
    .describe = fc_cuda_describe,
    .host_alloc = fc_cuda_host_alloc,
    .host_free = fc_cuda_host_free,
    .copy_stream_open = fc_cuda_copy_stream_open,
    .event_open = fc_cuda_event_open,
    .event_close = fc_cuda_event_close,
    .event_record = fc_cuda_event_record,
    .event_wait = fc_cuda_event_wait,
    .event_sync = fc_cuda_event_sync,
    .graph_begin = fc_cuda_graph_begin,
    .graph_end = fc_cuda_graph_end,
    .graph_launch = fc_cuda_graph_launch,
    .graph_free = fc_cuda_graph_free,
    .range_push = fc_cuda_range_push,
    .range_pop = fc_cuda_range_pop,

    .gemm = fc_cuda_gemm,
    .pack = fc_cuda_pack,
    .unpack = fc_cuda_unpack,
    .gemm_packed = fc_cuda_gemm_packed,

    .has_fp8 = fc_cuda_has_fp8,
    .gemm_fp8 = fc_cuda_gemm_fp8,

    .dequantise = fc_cuda_dequantise,
    .quantised_open = fc_cuda_quantised_open,
    .quantised_close = fc_cuda_quantised_close,
    .gemm_quantised = fc_cuda_gemm_quantised,
    .embed_quantised = fc_cuda_embed_quantised,

    .embed_forward = fc_cuda_embed_forward,
    .embed_backward = fc_cuda_embed_backward,

    .rmsnorm_forward = fc_cuda_rmsnorm_forward,
    .rmsnorm_backward = fc_cuda_rmsnorm_backward,
    .layernorm_forward = fc_cuda_layernorm_forward,
    .layernorm_backward = fc_cuda_layernorm_backward,

    .rope = fc_cuda_rope,

    .attention_forward = fc_cuda_attention_forward,
    .attention_backward = fc_cuda_attention_backward,

    .cache_write = fc_cuda_cache_write,
    .paged_attention = fc_cuda_paged_attention,

    .swiglu_forward = fc_cuda_swiglu_forward,
    .swiglu_backward = fc_cuda_swiglu_backward,
    .ungated_forward = fc_cuda_ungated_forward,
    .ungated_backward = fc_cuda_ungated_backward,

    .bias_forward = fc_cuda_bias_forward,
    .bias_backward = fc_cuda_bias_backward,
    .gather_rows = fc_cuda_gather_rows,
    .scatter_rows = fc_cuda_scatter_rows,
    .cast = fc_cuda_cast,

    .cross_entropy = fc_cuda_cross_entropy,

    .sample = fc_cuda_sample,
    .select_smallest = fc_cuda_select_smallest,
    .draw = fc_cuda_draw,

    .sum_squares = fc_cuda_sum_squares,
    .all_finite = fc_cuda_all_finite,
    .adamw = fc_cuda_adamw,
};
