#include "cudnn_cuda.h"

#ifdef PN_HAVE_CUDNN

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"
#include "log.h"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define LIBRARY    "libcudnn.so." TEXT(CUDNN_MAJOR)

#define CUDNN_MAP(X)                                                                                                   \
    X(Create)                                                                                                          \
    X(SetStream)                                                                                                       \
    X(GetErrorString)                                                                                                  \
    X(GetLastErrorString)                                                                                              \
    X(GetVersion)                                                                                                      \
    X(BackendCreateDescriptor)                                                                                         \
    X(BackendDestroyDescriptor)                                                                                        \
    X(BackendSetAttribute)                                                                                             \
    X(BackendGetAttribute)                                                                                             \
    X(BackendFinalize)                                                                                                 \
    X(BackendExecute)

static struct {
    bool tried, open;
    cudnnHandle_t handle;
#define X(function) __typeof__(&cudnn##function) function;
    CUDNN_MAP(X)
#undef X
} lib;

enum { CUDA = CUDART_VERSION / 1000 };
enum { MOST_PARTS = 256, MOST_OPERATIONS = 64, MOST_CONFIGS = 16, MOST_NOTES = 16 };

struct pn_cudnn_graph {
    cudnnStatus_t status; /* of the first call that failed */
    int64_t unnamed;      /* ids of tensors that are not kept count down from -1 */
    int n_parts, n_operations;
    cudnnBackendDescriptor_t part[MOST_PARTS], operation[MOST_OPERATIONS];
};

struct pn_cudnn_plan {
    cudnnBackendDescriptor_t plan;
    int64_t workspace;
};

static pn_status find(void *handle, const char *name, void *function) {
    void *at = dlsym(handle, name);
    PN_CHECK(at, PN_UNSUPPORTED, "%s has no %s", LIBRARY, name);
    memcpy(function, &at, sizeof at);
    return PN_OK;
}

static pn_status load(void) {
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    PN_CHECK(handle, PN_UNSUPPORTED, "%s cannot be loaded: %s", LIBRARY, dlerror());
#define X(function) PN_TRY(find(handle, "cudnn" #function, &lib.function));
    CUDNN_MAP(X)
#undef X
    cudnnStatus_t s = lib.Create(&lib.handle);
    if (!s) s = lib.SetStream(lib.handle, pn_cuda_stream());
    PN_CHECK(!s, PN_UNSUPPORTED, "%s cannot start: %s", LIBRARY, lib.GetErrorString(s));
    lib.open = true;
    return PN_OK;
}

/* The first to ask warns: what runs instead is correct, but slower. */
static pn_status load_once(void) {
    if (!lib.tried) {
        lib.tried = true;
        if (load())
            pn_warn(
                "%s; softmax attention in BF16 runs on slower kernels of this program: install cuDNN %d for CUDA %d "
                "(libcudnn%d-cuda-%d; in Python nvidia-cudnn-cu%d) and put the folder of %s into LD_LIBRARY_PATH",
                pn_error_message(), CUDNN_MAJOR, CUDA, CUDNN_MAJOR, CUDA, CUDA, LIBRARY);
    }
    PN_CHECK(lib.open, PN_UNSUPPORTED, "%s is not loaded", LIBRARY);
    return PN_OK;
}

/* ---- descriptors ---- */

static void note(pn_cudnn_graph *g, cudnnStatus_t status) {
    if (!g->status) g->status = status;
}

/* One that the graph frees. */
static cudnnBackendDescriptor_t part(pn_cudnn_graph *g, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = NULL;
    PN_ASSERT(g->n_parts < MOST_PARTS);
    if (!g->status) note(g, lib.BackendCreateDescriptor(type, &d));
    if (d) g->part[g->n_parts++] = d;
    return d;
}
static void set(pn_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    if (!g->status) note(g, lib.BackendSetAttribute(d, name, type, n, values));
}
static void set_part(pn_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t value) {
    if (value) set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}
static void finish(pn_cudnn_graph *g, cudnnBackendDescriptor_t d) {
    if (!g->status) note(g, lib.BackendFinalize(d));
}
static cudnnBackendDescriptor_t operation(pn_cudnn_graph *g, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = part(g, type);
    PN_ASSERT(g->n_operations < MOST_OPERATIONS);
    g->operation[g->n_operations++] = d;
    return d;
}

/* ---- graphs ---- */

pn_status pn_cudnn_graph_begin(pn_cudnn_graph **out) {
    *out = NULL;
    PN_TRY(load_once());
    *out = calloc(1, sizeof **out);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return PN_OK;
}

pn_cudnn_tensor pn_cudnn_add_tensor(pn_cudnn_graph *g, const pn_cudnn_shape *x) {
    const int64_t alignment = 16, id = x->id ? x->id : --g->unnamed;
    const bool kept = x->id != 0;
    cudnnBackendDescriptor_t d = part(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &x->type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, x->size);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, x->stride);
    set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &(bool){ !kept });
    if (x->scalar) set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &x->scalar);
    set_part(g, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, x->offset);
    finish(g, d);
    return d;
}

void pn_cudnn_add_pointwise(pn_cudnn_graph *g, cudnnPointwiseMode_t mode, cudnnDataType_t type, pn_cudnn_tensor x,
                            pn_cudnn_tensor b, pn_cudnn_tensor t, pn_cudnn_tensor y, int64_t axis) {
    cudnnBackendDescriptor_t how = part(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    if (mode == CUDNN_POINTWISE_GEN_INDEX) set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    finish(g, how);
    cudnnBackendDescriptor_t d = operation(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    finish(g, d);
}

void pn_cudnn_add_matmul(pn_cudnn_graph *g, pn_cudnn_tensor a, pn_cudnn_tensor b, pn_cudnn_tensor c, pn_cudnn_tensor m,
                         pn_cudnn_tensor n, pn_cudnn_tensor k) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = part(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finish(g, how);
    cudnnBackendDescriptor_t d = operation(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n);
    set_part(g, d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k);
    finish(g, d);
}

void pn_cudnn_add_reduction(pn_cudnn_graph *g, cudnnReduceTensorOp_t op, pn_cudnn_tensor x, pn_cudnn_tensor y) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = part(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &op);
    set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finish(g, how);
    cudnnBackendDescriptor_t d = operation(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    set_part(g, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_part(g, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    finish(g, d);
}

void pn_cudnn_add_reshape(pn_cudnn_graph *g, pn_cudnn_tensor x, pn_cudnn_tensor y) {
    cudnnBackendDescriptor_t d = operation(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_part(g, d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    finish(g, d);
}

/* ---- plans ---- */

/* Whether the engine of a config is said to give other bits from run to run. */
static bool varies(pn_cudnn_graph *g, cudnnBackendDescriptor_t config) {
    cudnnBackendDescriptor_t engine = part(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendNumericalNote_t notes[MOST_NOTES];
    int64_t n = 0;
    if (g->status ||
        lib.BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) ||
        lib.BackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, MOST_NOTES, &n,
                                notes))
        return true;
    for (int64_t i = 0; i < n; i++)
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) return true;
    return false;
}

static bool make_plan(cudnnBackendDescriptor_t config, pn_cudnn_plan *p) {
    int64_t n = 0;
    if (lib.BackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &p->plan)) return false;
    cudnnStatus_t s =
        lib.BackendSetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &lib.handle);
    if (!s)
        s = lib.BackendSetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                    &config);
    if (!s) s = lib.BackendFinalize(p->plan);
    if (!s)
        s = lib.BackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n,
                                    &p->workspace);
    if (!s) return true;
    lib.BackendDestroyDescriptor(p->plan);
    p->plan = NULL;
    return false;
}

/* The configs that cuDNN proposes for the graph, best first: descriptors of the graph's. */
static int propose(pn_cudnn_graph *g, cudnnBackendDescriptor_t config[MOST_CONFIGS]) {
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t graph = part(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_operations, g->operation);
    set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &lib.handle);
    finish(g, graph);
    cudnnBackendDescriptor_t heuristics = part(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_part(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finish(g, heuristics);
    for (int i = 0; i < MOST_CONFIGS; i++) config[i] = part(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    int64_t n = 0;
    if (!g->status)
        note(g, lib.BackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                        MOST_CONFIGS, &n, config));
    return g->status ? 0 : (int)n;
}

static void graph_free(pn_cudnn_graph **g) {
    for (int i = (*g)->n_parts; i > 0; i--) lib.BackendDestroyDescriptor((*g)->part[i - 1]);
    free(*g);
    *g = NULL;
}

pn_status pn_cudnn_graph_end(pn_cudnn_graph **graph, size_t most_bytes, bool repeatable, pn_cudnn_plan **out) {
    pn_cudnn_graph *g = *graph;
    cudnnBackendDescriptor_t config[MOST_CONFIGS];
    pn_cudnn_plan made = { 0 };
    *out = NULL;
    int n = propose(g, config);
    for (int i = 0; i < n && !made.plan; i++) {
        if ((repeatable && varies(g, config[i])) || !make_plan(config[i], &made)) continue;
        if ((uint64_t)made.workspace <= most_bytes) continue;
        lib.BackendDestroyDescriptor(made.plan);
        made.plan = NULL;
    }
    char text[256] = "no engine has a plan";
    if (g->status) lib.GetLastErrorString(text, sizeof text);
    if (!made.plan) pn_debug("cudnn", "a graph of %d operations has no plan: %s", g->n_operations, text);
    graph_free(graph);
    if (!made.plan) return PN_OK;
    *out = malloc(sizeof **out);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    **out = made;
    return PN_OK;
}

size_t pn_cudnn_workspace(const pn_cudnn_plan *p) {
    return (size_t)p->workspace;
}

pn_status pn_cudnn_run(const pn_cudnn_plan *p, const char *name, int n, const int64_t *id, void *const *address,
                       void *workspace) {
    cudnnBackendDescriptor_t values;
    cudnnStatus_t s = lib.BackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &values);
    PN_CHECK(!s, PN_DEVICE, "%s: cuDNN: %s", name, lib.GetErrorString(s));
    s = lib.BackendSetAttribute(values, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, id);
    if (!s) s = lib.BackendSetAttribute(values, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, address);
    if (!s) s = lib.BackendSetAttribute(values, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (!s) s = lib.BackendFinalize(values);
    if (!s) s = lib.BackendExecute(lib.handle, p->plan, values);
    lib.BackendDestroyDescriptor(values);
    PN_CHECK(!s, PN_DEVICE, "%s: cuDNN: %s", name, lib.GetErrorString(s));
    return pn_cuda_launched(name);
}

void pn_cudnn_plan_free(pn_cudnn_plan **p) {
    if (!*p) return;
    lib.BackendDestroyDescriptor((*p)->plan);
    free(*p);
    *p = NULL;
}
#endif
