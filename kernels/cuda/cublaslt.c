/* cuBLASLt, loaded when the first stream opens instead of when the program starts.
 *
 * The library is half a gigabyte: linking it would cost every start of the program 0.1 s of a core
 * (`fedcot --help` too), and a machine without it, which needs the CPU back end alone, could not
 * start it at all. So these definitions stand in for the library's own, which is found by the
 * loader as usual (LD_LIBRARY_PATH, RUNPATH, ld.so.conf), and pass on to it. Callers include
 * cublasLt.h and notice nothing, but must have called fc_cuda_load_cublaslt with success before. */
#define _GNU_SOURCE
#include "kernels/cuda/cuda.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
static const char library[] = "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR);

#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtGetStatusName)                                                                       \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulAlgoCheck)                                                                     \
    X(cublasLtMatmulDescInit_internal)                                                             \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutInit_internal)                                                           \
    X(cublasLtMatmulPreferenceInit_internal)                                                       \
    X(cublasLtMatmulPreferenceSetAttribute)

/* Written once, by load. */
#define POINTER(name) __typeof__(name) *name;
static struct {
    FUNCTIONS(POINTER)
    char failure[256]; /* why it could not be loaded; empty: it is */
} lt;

static void *find(void *handle, const char *name)
{
    void *p = dlsym(handle, name);
    if (!p && !lt.failure[0])
        snprintf(lt.failure, sizeof lt.failure, "it has no %s", name);
    return p;
}

static void load(void)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(lt.failure, sizeof lt.failure, "%s", dlerror());
        return;
    }
    void *p; /* ISO C has no cast from an object's pointer to a function's */
#define FIND(name)                                                                                 \
    p = find(handle, #name);                                                                       \
    memcpy(&lt.name, &p, sizeof p);
    FUNCTIONS(FIND)
}

bool fc_cuda_load_cublaslt(struct fc_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, load);
    if (!lt.failure[0])
        return true;
    fc_fail(err, FC_ERR_UNSUPPORTED,
            "CUDA's matrix products need %s: %s; install it (it is part of the CUDA Toolkit), or "
            "take --device cpu",
            library, lt.failure);
    return false;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    return lt.cublasLtCreate(handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return lt.cublasLtDestroy(handle);
}

size_t cublasLtGetVersion(void)
{
    return lt.cublasLtGetVersion();
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    return lt.cublasLtGetStatusName(status);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes,
                              cudaStream_t stream)
{
    return lt.cublasLtMatmul(handle, product, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d,
                             d_layout, algorithm, workspace, bytes, stream);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t *results, int *count)
{
    return lt.cublasLtMatmulAlgoGetHeuristic(handle, product, a, b, c, d, preference, most, results,
                                             count);
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    return lt.cublasLtMatmulAlgoCheck(handle, product, a, b, c, d, algorithm, result);
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t product, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    return lt.cublasLtMatmulDescInit_internal(product, size, compute, scale);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t which,
                                              const void *value, size_t bytes)
{
    return lt.cublasLtMatmulDescSetAttribute(product, which, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t columns,
                                                 int64_t ld)
{
    return lt.cublasLtMatrixLayoutInit_internal(layout, size, type, rows, columns, ld);
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     size_t size)
{
    return lt.cublasLtMatmulPreferenceInit_internal(preference, size);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void *value, size_t bytes)
{
    return lt.cublasLtMatmulPreferenceSetAttribute(preference, which, value, bytes);
}
