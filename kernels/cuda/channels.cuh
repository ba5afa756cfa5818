/* Kernels whose threads own a few neighbouring channels and walk a run of tokens, as what is between tokens is then in
 * registers; and sums over tokens of such kernels, one row of partial sums per run, added in the order of runs. */
#ifndef PN_KERNELS_CUDA_CHANNELS_CUH
#define PN_KERNELS_CUDA_CHANNELS_CUH

#include "element.cuh"
#include "tensor_core.cuh"

extern "C" {
#include "device.h"
}

/* V neighbouring channels, read and written at once. */
template <class T, int V> struct alignas(V * sizeof(T)) pn_channels {
    T x[V];
    __device__ float operator[](int i) const { return pn_load(x + i); }
    __device__ void set(const float value[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) pn_store(x + i, value[i]);
    }
};
/* Two to a register for as long as they wait in one. */
template <int V> struct alignas(V * sizeof(pn_bf16)) pn_channels<pn_bf16, V> {
    static_assert(V % 2 == 0, "whole pairs");
    uint32_t pair[V / 2];
    __device__ float operator[](int i) const {
        return i % 2 ? pn_bf16_second(pair[i / 2]) : pn_bf16_first(pair[i / 2]);
    }
    __device__ void set(const float value[V]) {
#pragma unroll
        for (int i = 0; i < V; i += 2) pair[i / 2] = pn_bf16_pair(value[i], value[i + 1]);
    }
};
template <> struct pn_channels<pn_bf16, 1> {
    pn_bf16 x[1];
    __device__ float operator[](int) const { return pn_load(x); }
    __device__ void set(const float *value) { pn_store(x, *value); }
};

template <class T, int V> __device__ pn_channels<T, V> pn_channels_at(const T *p) {
    return *(const pn_channels<T, V> *)p;
}
/* In words: the compiler does not always store a structure at once. */
template <class T, int V> __device__ void pn_channels_put(T *p, const float value[V]) {
    pn_channels<T, V> v;
    v.set(value);
    uint32_t word[4];
    if (sizeof v % 8 == 0) memcpy(word, &v, sizeof v);
    if (sizeof v == 16)
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(word[0]), "r"(word[1]), "r"(word[2]),
                     "r"(word[3])
                     : "memory");
    else if (sizeof v == 8)
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(word[0]), "r"(word[1]) : "memory");
    else
        *(pn_channels<T, V> *)p = v;
}
template <class T, int V> __device__ pn_channels<T, V> pn_channels_zero() {
    const float zero[V] = {};
    pn_channels<T, V> v;
    v.set(zero);
    return v;
}
/* V floats, where they are not aligned to more than 16 bytes. */
template <int V> __device__ void pn_floats_at(const float *p, float x[V]) {
    enum { EACH = V < 4 ? V : 4 };
#pragma unroll
    for (int i = 0; i < V; i += EACH) {
        pn_channels<float, EACH> v = pn_channels_at<float, EACH>(p + i);
#pragma unroll
        for (int k = 0; k < EACH; k++) x[i + k] = v.x[k];
    }
}
template <int V> __device__ void pn_floats_put(float *p, const float x[V]) {
    enum { EACH = V < 4 ? V : 4 };
#pragma unroll
    for (int i = 0; i < V; i += EACH) pn_channels_put<float, EACH>(p + i, x + i);
}

/* Zeros in a gradient that holds nothing yet (op.h), for what can only add to it. */
static inline pn_status pn_cuda_zero_fresh(const pn_op_call *c, int input) {
    const pn_tensor *d = c->din[input];
    return d && !pn_op_adds(c, input) ? pn_device_fill(pn_data(d), 0, pn_tensor_bytes(d)) : PN_OK;
}

/* Whether rows of `row` elements can be taken 16 bytes at a time; NULL is fine. */
template <class T, class... P> bool pn_in_vectors(int64_t row, const P *...p) {
    uintptr_t bits = 0;
    ((bits |= (uintptr_t)p), ...);
    return bits % 16 == 0 && row % pn_vector<T>::n == 0;
}

/* A thread's first channel and its run of tokens. Neighbouring threads have neighbouring channels. */
enum { PN_RUN_THREADS = 256 };

struct pn_run {
    int64_t channel;
    int begin, end; /* tokens; begin = end past the last run */
};
template <int V> __device__ pn_run pn_run_of_thread(int64_t channels, int tokens, int run) {
    const int64_t i = (int64_t)blockIdx.x * PN_RUN_THREADS + threadIdx.x, across = channels / V, r = i / across;
    const int64_t begin = min(r * run, (int64_t)tokens);
    return { (i - r * across) * V, (int)begin, (int)min(begin + run, (int64_t)tokens) };
}
static inline int64_t pn_cuda_runs(int64_t tokens, int run) {
    return (tokens + run - 1) / run;
}
template <int V> unsigned pn_run_blocks(int64_t channels, int64_t tokens, int run) {
    return pn_cuda_blocks(pn_cuda_runs(tokens, run) * (channels / V), PN_RUN_THREADS);
}
/* Of runs that end with a row of partial sums: long ones have fewer rows, short ones keep the GPU busy where tokens are
 * few. */
static inline int pn_run_with_sums(int64_t tokens) {
    return tokens >= 16384 ? 64 : 16;
}

/* ---- sums over runs ---- */

enum { PN_RUNS_COLUMNS = 32, PN_RUNS_ROWS = 32 };

/* part [runs, columns]: g(c, sum over runs of part[r][c]). */
template <class G>
__global__ void __launch_bounds__(PN_RUNS_COLUMNS *PN_RUNS_ROWS)
    pn_runs_finish(const float *part, int64_t runs, int64_t columns, G g) {
    __shared__ float row[PN_RUNS_ROWS][PN_RUNS_COLUMNS];
    int64_t c = (int64_t)blockIdx.x * PN_RUNS_COLUMNS + threadIdx.x;
    float sum = 0;
#pragma unroll 4
    for (int64_t r = threadIdx.y; c < columns && r < runs; r += PN_RUNS_ROWS) sum += part[r * columns + c];
    row[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= columns) return;
    for (int i = 1; i < PN_RUNS_ROWS; i++) sum += row[i][threadIdx.x];
    g(c, sum);
}

template <class G> pn_status pn_cuda_runs_sum(const char *name, const float *part, int64_t runs, int64_t columns, G g) {
    if (runs == 0 || columns == 0) return PN_OK;
    pn_runs_finish<<<pn_cuda_blocks(columns, PN_RUNS_COLUMNS), dim3(PN_RUNS_COLUMNS, PN_RUNS_ROWS), 0,
                     pn_cuda_stream()>>>(part, runs, columns, g);
    return pn_cuda_launched(name);
}

#endif
