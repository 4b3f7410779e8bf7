/* Private to the CPU back end: matrix products through oneDNN, created once and kept.
 *
 * The first part evens out the two C APIs that distributions ship: in v2 a memory descriptor is a
 * struct and a primitive descriptor is made from an operation descriptor; in v3 both are opaque.
 * The second part is a cache of ready primitives per stream. */
#ifndef FC_KERNELS_CPU_ONEDNN_H
#define FC_KERNELS_CPU_ONEDNN_H

#include "kernels/cpu/cpu.h"

#include <dnnl.h>

/* ---- oneDNN v2 and v3 ----------------------------------------------------------------------- */

/* An owned memory descriptor of a matrix. */
struct fc_layout {
    dnnl_memory_desc_t md;
};

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t fc_layout_ref;

static inline fc_layout_ref fc_layout_of(const struct fc_layout *l)
{
    return l->md;
}
static inline dnnl_status_t fc_layout_clone(struct fc_layout *l, fc_layout_ref from)
{
    return dnnl_memory_desc_clone(&l->md, from);
}
static inline dnnl_status_t fc_layout_strided(struct fc_layout *l, const dnnl_dims_t dims,
                                              dnnl_data_type_t type, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(&l->md, 2, dims, type, strides);
}
static inline dnnl_status_t fc_layout_any(struct fc_layout *l, const dnnl_dims_t dims,
                                          dnnl_data_type_t type)
{
    return dnnl_memory_desc_create_with_tag(&l->md, 2, dims, type, dnnl_format_tag_any);
}
static inline void fc_layout_free(struct fc_layout *l)
{
    if (l->md)
        dnnl_memory_desc_destroy(l->md);
    l->md = NULL;
}
static inline dnnl_status_t fc_matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                           fc_layout_ref a, fc_layout_ref b, fc_layout_ref bias,
                                           fc_layout_ref y, const_dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, a, b, bias, y, attr);
}
static inline dnnl_status_t fc_append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}
#else
typedef const dnnl_memory_desc_t *fc_layout_ref;

static inline fc_layout_ref fc_layout_of(const struct fc_layout *l)
{
    return &l->md;
}
static inline dnnl_status_t fc_layout_clone(struct fc_layout *l, fc_layout_ref from)
{
    l->md = *from;
    return dnnl_success;
}
static inline dnnl_status_t fc_layout_strided(struct fc_layout *l, const dnnl_dims_t dims,
                                              dnnl_data_type_t type, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(&l->md, 2, dims, type, strides);
}
static inline dnnl_status_t fc_layout_any(struct fc_layout *l, const dnnl_dims_t dims,
                                          dnnl_data_type_t type)
{
    return dnnl_memory_desc_init_by_tag(&l->md, 2, dims, type, dnnl_format_tag_any);
}
static inline void fc_layout_free(struct fc_layout *l)
{
    (void)l;
}
static inline dnnl_status_t fc_matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                           fc_layout_ref a, fc_layout_ref b, fc_layout_ref bias,
                                           fc_layout_ref y, const_dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t op;
    dnnl_status_t st = dnnl_matmul_desc_init(&op, a, b, bias, y);
    return st != dnnl_success ? st : dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
}
static inline dnnl_status_t fc_append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}
#endif

/* ---- cached products ------------------------------------------------------------------------ */

/* Runs g with the stream's primitive for its shape, creating it at the first use. False if oneDNN
 * has none that sums in a fixed order (or on an error, then in the stream): compute it elsewhere.
 * With `packed`, b lies in that layout instead of rows (trans_b and ldb are ignored).
 * m, n, k > 0. */
bool fc_cpu_product(struct fc_stream *s, const struct fc_gemm *g, const struct fc_layout *packed);

/* Whether fc_cpu_product would run g; creates the primitive, so that the first run need not. */
bool fc_cpu_product_ready(struct fc_stream *s, const struct fc_gemm *g,
                          const struct fc_layout *packed);

/* The layout of w[n,k] that a product of m rows with w^T prefers, its bytes in *bytes. False:
 * error in the stream. */
bool fc_cpu_product_layout(struct fc_stream *s, size_t m, size_t n, size_t k, enum fc_dtype dt,
                           struct fc_layout *layout, size_t *bytes);

/* Copies w[n,k] to `to` in that layout. */
bool fc_cpu_product_reorder(struct fc_stream *s, void *to, const struct fc_layout *layout,
                            const void *w, size_t n, size_t k, enum fc_dtype dt);

#endif
