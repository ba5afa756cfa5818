#include "matmul_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "cublaslt_cuda.h"
#include "device_cuda.h"
#include "fill_cuda.h"

/* What a plan depends on. Compared as bytes: made with memset first. */
typedef struct key {
    int64_t m, n, k, batch;
    int64_t a_row, b_row, c_row, a_step, b_step, c_step;
    pn_dtype type, c_type;
    int align_a, align_b, align_c; /* bytes that the addresses are multiples of, 256 at most */
    int align_bias;                /* 0: none */
    bool a_turned, b_turned, add;
} key;

typedef struct plan {
    key key;
    bool used;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} plan;

/* Open addressing, at most half full; when it would be fuller all plans go (shapes that never come back, of decoding).
 */
enum { PLANS = 2048 };
static plan plans[PLANS];
static int n_plans;

static uint64_t hash(const key *k) {
    const unsigned char *bytes = (const unsigned char *)k;
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *k; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

static int alignment(const void *p, int64_t step, pn_dtype type) {
    uintptr_t x = (uintptr_t)p | (uintptr_t)step * pn_dtype_bytes(type);
    return x % 256 == 0 ? 256 : (int)(x & -x);
}

static int64_t rows_apart(int64_t row, bool turned, int64_t rows, int64_t columns) {
    return row ? row : turned ? rows : columns;
}

static key key_of(const pn_matmul *p) {
    key k;
    memset(&k, 0, sizeof k);
    k.m = p->m, k.n = p->n, k.k = p->k;
    k.batch = p->batch ? p->batch : 1;
    if (k.batch > 1) k.a_step = p->a_step, k.b_step = p->b_step, k.c_step = p->c_step;
    k.a_row = rows_apart(p->a_row, p->a_turned, p->m, p->k);
    k.b_row = rows_apart(p->b_row, p->b_turned, p->k, p->n);
    k.c_row = rows_apart(p->c_row, false, p->m, p->n);
    k.type = p->a_type, k.c_type = p->c_type;
    k.align_a = alignment(p->a, k.a_step, k.type), k.align_b = alignment(p->b, k.b_step, k.type);
    k.align_c = alignment(p->c, k.c_step, k.c_type);
    k.a_turned = p->a_turned, k.b_turned = p->b_turned;
    if (p->bias) k.align_bias = alignment(p->bias, 0, k.c_type);
    k.add = p->add;
    return k;
}

static void plan_free(const pn_cublaslt *lt, plan *p) {
    if (p->product) lt->MatmulDescDestroy(p->product);
    if (p->a) lt->MatrixLayoutDestroy(p->a);
    if (p->b) lt->MatrixLayoutDestroy(p->b);
    if (p->c) lt->MatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

static cudaDataType_t type_of(pn_dtype type) {
    return type == PN_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major matrix of `rows` rows: to cuBLAS, which counts columns first, its transpose. */
static cublasStatus_t layout(const pn_cublaslt *lt, pn_dtype type, int64_t rows, int64_t columns, int64_t row,
                             int64_t batch, int64_t step, cublasLtMatrixLayout_t *out) {
    const int32_t count = (int32_t)batch;
    cublasStatus_t s = lt->MatrixLayoutCreate(out, type_of(type), (uint64_t)columns, (uint64_t)rows, row);
    if (!s && batch > 1)
        s = lt->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (!s && batch > 1)
        s = lt->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
    return s;
}

/* c = a b is made as c^T = b^T a^T: b comes first, and a matrix that is turned here is turned there. */
static pn_status describe(const pn_cublaslt *lt, const pn_matmul *p, const key *k, plan *x) {
    const cublasOperation_t first = k->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = k->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    int64_t a_rows = k->a_turned ? k->k : k->m, a_cols = k->a_turned ? k->m : k->k;
    int64_t b_rows = k->b_turned ? k->n : k->k, b_cols = k->b_turned ? k->k : k->n;
    cublasStatus_t s = lt->MatmulDescCreate(&x->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s) s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (!s) s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    if (!s && p->bias)
        s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!s && p->bias)
        s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    if (!s) s = layout(lt, k->type, b_rows, b_cols, k->b_row, k->batch, k->b_step, &x->b);
    if (!s) s = layout(lt, k->type, a_rows, a_cols, k->a_row, k->batch, k->a_step, &x->a);
    if (!s) s = layout(lt, k->c_type, k->m, k->n, k->c_row, k->batch, k->c_step, &x->c);
    return pn_cublaslt_status(s, p->name, "describing a product to cuBLASLt");
}

/* Parts of a sum that are kept in the output's type, or added as they come, are left out. */
static pn_status prefer(const pn_cublaslt *lt, const char *name, const key *k, cublasLtMatmulPreference_t wish) {
    const uint64_t workspace = PN_MATMUL_WORKSPACE;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t n_bytes;
    } wishes[] = {
        { CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace },
        { CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &(uint32_t){ (uint32_t)k->align_b }, sizeof(uint32_t) },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &(uint32_t){ (uint32_t)k->align_a }, sizeof(uint32_t) },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &(uint32_t){ (uint32_t)k->align_c }, sizeof(uint32_t) },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &(uint32_t){ (uint32_t)k->align_c }, sizeof(uint32_t) },
    };
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes && !s; i++)
        s = lt->MatmulPreferenceSetAttribute(wish, wishes[i].what, wishes[i].value, wishes[i].n_bytes);
    return pn_cublaslt_status(s, name, "telling cuBLASLt what its plan may use");
}

/* cuBLASLt likes large tiles best. Where sums are short, writing results is a good part of a kernel's time, and one of
 * smaller tiles does so while it computes. Of the kernels that it names for Hopper, that of the most tiles was up to 11
 * % faster than its first for k of 1152 and 1536, many rows and 1152 to 8960 columns in BF16, and never slower; where
 * the tiles make two waves or fewer, and for a vocabulary of columns, the first is the fastest. */
static bool likes_small_tiles(const key *k, const cublasLtMatmulHeuristicResult_t *first) {
    int major;
    return k->type == PN_BF16 && k->c_type == PN_BF16 && k->k >= 1024 && k->k <= 2048 && k->m >= 2048 &&
           k->n <= 16384 && first->wavesCount > 2.5F &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major == 9;
}

enum { ASKED = 8 };

static const cublasLtMatmulHeuristicResult_t *best_of(const key *k, const cublasLtMatmulHeuristicResult_t *found,
                                                      int n) {
    const cublasLtMatmulHeuristicResult_t *best = found;
    for (int i = 1; i < n && likes_small_tiles(k, found); i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS && found[i].wavesCount > best->wavesCount) best = &found[i];
    return best;
}

static pn_status choose(const pn_cublaslt *lt, const char *name, const key *k, plan *x) {
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t found[ASKED];
    int n = 0;
    PN_TRY(pn_cublaslt_status(lt->MatmulPreferenceCreate(&wish), name, "asking cuBLASLt for a plan"));
    pn_status s = prefer(lt, name, k, wish);
    if (!s)
        s = pn_cublaslt_status(
            lt->MatmulAlgoGetHeuristic(lt->handle, x->product, x->b, x->a, x->c, x->c, wish, ASKED, found, &n), name,
            "asking cuBLASLt for a plan");
    lt->MatmulPreferenceDestroy(wish);
    PN_TRY(s);
    PN_CHECK(n >= 1, PN_DEVICE, "%s: cuBLASLt has no plan for %lld x %lld x %lld", name, (long long)k->m,
             (long long)k->n, (long long)k->k);
    x->algo = best_of(k, found, n)->algo;
    return PN_OK;
}

static pn_status plan_for(const pn_cublaslt *lt, const pn_matmul *p, plan **out) {
    key k = key_of(p);
    uint64_t at = hash(&k) % PLANS;
    for (; plans[at].used; at = (at + 1) % PLANS)
        if (!memcmp(&plans[at].key, &k, sizeof k)) {
            *out = &plans[at];
            return PN_OK;
        }
    if (n_plans == PLANS / 2) {
        for (int i = 0; i < PLANS; i++) plan_free(lt, &plans[i]);
        n_plans = 0;
        at = hash(&k) % PLANS;
    }
    plan *x = &plans[at];
    pn_status s = describe(lt, p, &k, x);
    if (!s) s = choose(lt, p->name, &k, x);
    if (s) {
        plan_free(lt, x);
        return s;
    }
    x->key = k;
    x->used = true;
    n_plans++;
    *out = x;
    return PN_OK;
}

static pn_status set_result(const pn_matmul *p, int byte) {
    const size_t bytes = pn_dtype_bytes(p->c_type), row = bytes * (size_t)(p->c_row ? p->c_row : p->n);
    for (int64_t i = 0; i < (p->batch ? p->batch : 1); i++)
        PN_TRY(pn_cuda_status(cudaMemset2DAsync((char *)p->c + (size_t)(i * p->c_step) * bytes, row, byte,
                                                bytes * (size_t)p->n, (size_t)p->m, pn_cuda_stream()),
                              p->name));
    return PN_OK;
}

pn_status pn_cuda_matmul(const pn_matmul *p, void *workspace) {
    PN_ASSERT(!p->bias || (!p->add && p->k > 0));
    PN_ASSERT(p->a_type == p->b_type && (p->a_type == PN_F32 || p->a_type == PN_BF16));
    PN_ASSERT(p->c_type == p->a_type || p->c_type == PN_F32);
    PN_ASSERT(p->batch >= 0 && p->batch <= INT32_MAX);
    if (p->m == 0 || p->n == 0) return PN_OK;
    if (p->k == 0) return p->add ? PN_OK : set_result(p, 0);
    const pn_cublaslt *lt;
    plan *x;
    PN_TRY(pn_cublaslt_open(&lt));
    PN_TRY(plan_for(lt, p, &x));
    if (p->bias)
        PN_TRY(pn_cublaslt_status(
            lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias),
            p->name, "naming the bias to cuBLASLt"));
    if (pn_cuda_fills() && !p->add) PN_TRY(set_result(p, PN_CUDA_FILL_BYTE));
    PN_TRY(pn_cuda_fill(workspace, PN_MATMUL_WORKSPACE));
    const float one = 1, keep = p->add ? 1 : 0;
    PN_TRY(pn_cublaslt_status(lt->Matmul(lt->handle, x->product, &one, p->b, x->b, p->a, x->a, &keep, p->c, x->c, p->c,
                                         x->c, &x->algo, workspace, PN_MATMUL_WORKSPACE, pn_cuda_stream()),
                              p->name, "a product of cuBLASLt"));
    return pn_cuda_launched(p->name);
}
