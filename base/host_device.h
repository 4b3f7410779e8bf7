/* FC_HOST_DEVICE marks a small function of a header that CUDA kernels call too, so that the host
 * and the device share one definition. */
#ifndef FC_BASE_HOST_DEVICE_H
#define FC_BASE_HOST_DEVICE_H

#ifdef __CUDACC__
#define FC_HOST_DEVICE __host__ __device__
#else
#define FC_HOST_DEVICE
#endif

#endif
