/* The table of the CUDA back end. */
#include "kernels/cuda/cuda.h"

const struct fc_kernels fc_kernels_cuda = {
    .name = "cuda",

    .stream_open = fc_cuda_stream_open,
    .stream_close = fc_cuda_stream_close,
    .alloc = fc_cuda_alloc,
    .free = fc_cuda_free,
    .upload = fc_cuda_upload,
    .download = fc_cuda_download,
    .copy = fc_cuda_copy,
    .zero = fc_cuda_zero,
    .sync = fc_cuda_sync,
};
