/* Private to the CUDA back end: the declaration of every entry of its table (see kernels.h). They
 * are C functions, defined in .cu files of the same names as the CPU's; launch.cuh has what those
 * share.
 */
#ifndef FC_KERNELS_CUDA_CUDA_H
#define FC_KERNELS_CUDA_CUDA_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fc_stream *fc_cuda_stream_open(int index, int threads, struct fc_error *err);
void fc_cuda_stream_close(struct fc_stream *s);
void *fc_cuda_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err);
void fc_cuda_free(struct fc_stream *s, void *p);
void fc_cuda_upload(struct fc_stream *s, void *device, const void *host, size_t bytes);
void fc_cuda_download(struct fc_stream *s, void *host, const void *device, size_t bytes);
void fc_cuda_copy(struct fc_stream *s, void *to, const void *from, size_t bytes);
void fc_cuda_zero(struct fc_stream *s, void *p, size_t bytes);
enum fc_code fc_cuda_sync(struct fc_stream *s, struct fc_error *err);

int fc_cuda_device_count(struct fc_error *why);
bool fc_cuda_describe(int index, char *text, size_t size);
void *fc_cuda_host_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err);
void fc_cuda_host_free(struct fc_stream *s, void *p);
struct fc_stream *fc_cuda_copy_stream_open(struct fc_stream *s, struct fc_error *err);
struct fc_event *fc_cuda_event_open(struct fc_stream *s, struct fc_error *err);
void fc_cuda_event_close(struct fc_stream *s, struct fc_event *e);
void fc_cuda_event_record(struct fc_stream *s, struct fc_event *e);
void fc_cuda_event_wait(struct fc_stream *s, struct fc_event *e);
void fc_cuda_event_sync(struct fc_stream *s, struct fc_event *e);
void fc_cuda_graph_begin(struct fc_stream *s);
struct fc_graph *fc_cuda_graph_end(struct fc_stream *s);
void fc_cuda_graph_launch(struct fc_stream *s, struct fc_graph *g);
void fc_cuda_graph_free(struct fc_stream *s, struct fc_graph *g);
void fc_cuda_range_push(const char *name);
void fc_cuda_range_pop(void);

/* cublaslt.c: loads cuBLASLt, once; false with *err (FC_ERR_UNSUPPORTED) where it is not there. */
bool fc_cuda_load_cublaslt(struct fc_error *err);
bool fc_cuda_has_fast(struct fc_stream *s, enum fc_dtype dt);
void fc_cuda_gemm(struct fc_stream *s, const struct fc_gemm *g);
/* gemm_blocks.cu: g by our own kernel, for what cuBLASLt refuses. m, n, k > 0. */
void fc_cuda_gemm_blocks(struct fc_stream *s, const struct fc_gemm *g);
struct fc_packed *fc_cuda_pack(struct fc_stream *s, const void *w, size_t n, size_t k,
                               enum fc_dtype dt);
void fc_cuda_unpack(struct fc_stream *s, struct fc_packed *w);
void fc_cuda_gemm_packed(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                         const struct fc_packed *w, size_t m);

bool fc_cuda_has_fp8(struct fc_stream *s);
void fc_cuda_gemm_fp8(struct fc_stream *s, const struct fc_gemm *g, void *scratch);

void fc_cuda_dequantise(struct fc_stream *s, void *out, enum fc_dtype dt, const void *blocks,
                        uint32_t type, size_t n);
struct fc_quantised *fc_cuda_quantised_open(struct fc_stream *s, const void *blocks, uint32_t type,
                                            size_t n, size_t k, size_t *bytes);
void fc_cuda_quantised_close(struct fc_stream *s, struct fc_quantised *w);
void fc_cuda_gemm_quantised(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                            enum fc_dtype x_type, const struct fc_quantised *w, size_t m);
void fc_cuda_embed_quantised(struct fc_stream *s, void *out, const struct fc_quantised *w,
                             const int32_t *ids, size_t T, enum fc_dtype dt);

void fc_cuda_embed_forward(struct fc_stream *s, void *out, const void *table, const int32_t *ids,
                           size_t T, size_t C, enum fc_dtype dt);
void fc_cuda_embed_backward(struct fc_stream *s, float *dtable, const void *dout,
                            const int32_t *ids, int32_t *scratch, size_t T, size_t C, size_t V,
                            enum fc_dtype dt);

void fc_cuda_rmsnorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *rstd,
                             const void *weight, float eps, size_t T, size_t C, enum fc_dtype dt);
void fc_cuda_rmsnorm_backward(struct fc_stream *s, void *dx, float *dweight, const void *dy,
                              const void *x, const float *rstd, const void *weight, float *scratch,
                              size_t T, size_t C, enum fc_dtype dt);

void fc_cuda_layernorm_forward(struct fc_stream *s, void *y, void *x, const void *delta,
                               float *mean, float *rstd, const void *weight, const void *bias,
                               float eps, size_t T, size_t C, enum fc_dtype dt);
void fc_cuda_layernorm_backward(struct fc_stream *s, void *dx, float *dweight, float *dbias,
                                const void *dy, const void *x, const float *mean, const float *rstd,
                                const void *weight, float *scratch, size_t T, size_t C,
                                enum fc_dtype dt);

void fc_cuda_rope(struct fc_stream *s, void *qkv, const int32_t *positions, const float *table,
                  size_t T, const struct fc_heads *h, bool backward, enum fc_dtype dt);

void fc_cuda_attention_forward(struct fc_stream *s, void *out, float *lse, const void *qkv,
                               const int32_t *starts, size_t B, const struct fc_heads *h,
                               enum fc_dtype dt);
void fc_cuda_attention_backward(struct fc_stream *s, void *dqkv, const void *dout, const void *out,
                                const float *lse, const void *qkv, float *scratch,
                                const int32_t *starts, size_t B, const struct fc_heads *h,
                                enum fc_dtype dt);

void fc_cuda_cache_write(struct fc_stream *s, const struct fc_pages *pages, const void *qkv,
                         const int32_t *slots, size_t T, const struct fc_heads *h,
                         enum fc_dtype dt);
void fc_cuda_paged_attention(struct fc_stream *s, void *out, const void *qkv,
                             const struct fc_pages *pages, const int32_t *tables,
                             size_t table_width, const int32_t *lengths, size_t T,
                             const struct fc_heads *h, enum fc_dtype dt);

void fc_cuda_swiglu_forward(struct fc_stream *s, void *out, const void *gate_up, size_t T, size_t F,
                            enum fc_dtype dt);
void fc_cuda_swiglu_backward(struct fc_stream *s, void *dgate_up, const void *dout,
                             const void *gate_up, size_t T, size_t F, enum fc_dtype dt);

void fc_cuda_ungated_forward(struct fc_stream *s, void *out, const void *in, enum fc_ungated f,
                             size_t n, enum fc_dtype dt);
void fc_cuda_ungated_backward(struct fc_stream *s, void *din, const void *dout, const void *in,
                              enum fc_ungated f, size_t n, enum fc_dtype dt);

void fc_cuda_bias_forward(struct fc_stream *s, void *y, const void *bias, size_t T, size_t N,
                          enum fc_dtype dt);
void fc_cuda_bias_backward(struct fc_stream *s, float *dbias, const void *dy, float *scratch,
                           size_t T, size_t N, enum fc_dtype dt);
void fc_cuda_gather_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                         size_t n, size_t C, enum fc_dtype dt);
void fc_cuda_scatter_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                          size_t n, size_t C, enum fc_dtype dt);
void fc_cuda_cast(struct fc_stream *s, void *to, enum fc_dtype to_type, const void *from,
                  enum fc_dtype from_type, size_t n);

void fc_cuda_cross_entropy(struct fc_stream *s, float *losses, void *logits, const int32_t *targets,
                           const float *weights, size_t n, size_t V, enum fc_dtype lt);

void fc_cuda_sample(struct fc_stream *s, int32_t *ids, const float *logits,
                    const struct fc_sampling *how, size_t n, size_t V);
void fc_cuda_select_smallest(struct fc_stream *s, int32_t *idx, const float *scores, size_t n,
                             size_t V, size_t m);

void fc_cuda_draw(struct fc_stream *s, int32_t *out, const int32_t *top, const uint64_t *u,
                  int32_t *scratch, const struct fc_draw *how, size_t n);

void fc_cuda_sum_squares(struct fc_stream *s, double *out, const float *g, double *scratch,
                         size_t n);
void fc_cuda_all_finite(struct fc_stream *s, int32_t *out, const float *g, size_t n);
void fc_cuda_adamw(struct fc_stream *s, void *weights, float *master, float *m, float *v,
                   const float *grad, size_t n, uint64_t first, const struct fc_adamw_step *how,
                   enum fc_dtype dt);

#ifdef __cplusplus
}
#endif

#endif
