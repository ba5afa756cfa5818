#include "matmul_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "cublaslt_cuda.h"
#include "device_cuda.h"

/* What a plan depends on. Compared as bytes: made with memset first. */
typedef struct key {
    int64_t m, n, k;
    int align_a, align_b, align_c; /* bytes that the address is a multiple of, 256 at most */
    bool a_turned, b_turned, bias, add;
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

static int alignment(const void *p) {
    uintptr_t x = (uintptr_t)p;
    return x % 256 == 0 ? 256 : (int)(x & -x);
}

static key key_of(const pn_matmul *p) {
    key k;
    memset(&k, 0, sizeof k);
    k.m = p->m, k.n = p->n, k.k = p->k;
    k.align_a = alignment(p->a), k.align_b = alignment(p->b), k.align_c = alignment(p->c);
    k.a_turned = p->a_turned, k.b_turned = p->b_turned;
    k.bias = p->bias != NULL, k.add = p->add;
    return k;
}

static void plan_free(const pn_cublaslt *lt, plan *p) {
    if (p->product) lt->MatmulDescDestroy(p->product);
    if (p->a) lt->MatrixLayoutDestroy(p->a);
    if (p->b) lt->MatrixLayoutDestroy(p->b);
    if (p->c) lt->MatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

/* cuBLAS counts columns first. A row-major [r, c] is to it a [c, r] with columns of c, so c = a b is made as
 * c^T = b^T a^T: b comes first, and a matrix that is turned here is turned there. */
static pn_status describe(const pn_cublaslt *lt, const pn_matmul *p, plan *x) {
    const cublasOperation_t first = p->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = p->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    int64_t a_rows = p->a_turned ? p->k : p->m, a_cols = p->a_turned ? p->m : p->k;
    int64_t b_rows = p->b_turned ? p->n : p->k, b_cols = p->b_turned ? p->k : p->n;
    cublasStatus_t s = lt->MatmulDescCreate(&x->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s) s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (!s) s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    if (!s && p->bias)
        s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!s && p->bias)
        s = lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    if (!s) s = lt->MatrixLayoutCreate(&x->b, CUDA_R_32F, (uint64_t)b_cols, (uint64_t)b_rows, b_cols);
    if (!s) s = lt->MatrixLayoutCreate(&x->a, CUDA_R_32F, (uint64_t)a_cols, (uint64_t)a_rows, a_cols);
    if (!s) s = lt->MatrixLayoutCreate(&x->c, CUDA_R_32F, (uint64_t)p->n, (uint64_t)p->m, p->n);
    return pn_cublaslt_status(s, p->name, "describing a product to cuBLASLt");
}

/* Parts of a sum that are kept in the output's type, or added as they come, are left out. */
static pn_status prefer(const pn_cublaslt *lt, const pn_matmul *p, const key *k, cublasLtMatmulPreference_t wish) {
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
    return pn_cublaslt_status(s, p->name, "telling cuBLASLt what its plan may use");
}

static pn_status choose(const pn_cublaslt *lt, const pn_matmul *p, const key *k, plan *x) {
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    PN_TRY(pn_cublaslt_status(lt->MatmulPreferenceCreate(&wish), p->name, "asking cuBLASLt for a plan"));
    pn_status s = prefer(lt, p, k, wish);
    if (!s)
        s = pn_cublaslt_status(
            lt->MatmulAlgoGetHeuristic(lt->handle, x->product, x->b, x->a, x->c, x->c, wish, 1, &found, &n), p->name,
            "asking cuBLASLt for a plan");
    lt->MatmulPreferenceDestroy(wish);
    PN_TRY(s);
    PN_CHECK(n == 1, PN_DEVICE, "%s: cuBLASLt has no plan for %lld x %lld x %lld", p->name, (long long)p->m,
             (long long)p->n, (long long)p->k);
    x->algo = found.algo;
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
    pn_status s = describe(lt, p, x);
    if (!s) s = choose(lt, p, &k, x);
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

pn_status pn_cuda_matmul(const pn_matmul *p, void *workspace) {
    PN_ASSERT(!(p->bias && p->add) && (p->k > 0 || p->add || p->m * p->n == 0));
    if (p->m == 0 || p->n == 0 || p->k == 0) return PN_OK;
    const pn_cublaslt *lt;
    plan *x;
    PN_TRY(pn_cublaslt_open(&lt));
    PN_TRY(plan_for(lt, p, &x));
    if (p->bias)
        PN_TRY(pn_cublaslt_status(
            lt->MatmulDescSetAttribute(x->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias),
            p->name, "naming the bias to cuBLASLt"));
    const float one = 1, keep = p->add ? 1 : 0;
    PN_TRY(pn_cublaslt_status(lt->Matmul(lt->handle, x->product, &one, p->b, x->b, p->a, x->a, &keep, p->c, x->c, p->c,
                                         x->c, &x->algo, workspace, PN_MATMUL_WORKSPACE, pn_cuda_stream()),
                              p->name, "a product of cuBLASLt"));
    return pn_cuda_launched(p->name);
}
