/* Tokens by id: digit by digit of the id, the lowest first, each pass keeping the order of equal digits. A block has
 * SHARE tokens, a warp of it WARP_SHARE in a row. In a pass every block counts its digits; then it adds up what lies
 * before its own, which is all blocks' smaller digits and earlier blocks' equal ones, and moves its tokens. */
#include "embedding_cuda.cuh"

namespace {

enum { WARPS = 8, THREADS = 32 * WARPS, WARP_SHARE = 128, SHARE = WARPS * WARP_SHARE, BITS = 8, DIGITS = 1 << BITS };
static_assert(THREADS == DIGITS, "a thread per digit");

struct keys {
    const int32_t *ids, *token; /* NULL token: 0 .. N-1 */
    int64_t N;
    uint32_t V;
    int shift;
    __device__ int32_t token_at(int64_t i) const { return token ? token[i] : (int32_t)i; }
    __device__ int digit_of(int32_t token) const {
        uint32_t id = (uint32_t)ids[token];
        return (int)((id < V ? id : V) >> shift) % DIGITS;
    }
};

/* The digits of a warp's share are counted in count [DIGITS]. */
__device__ void count_warp(const keys &k, int64_t begin, int lane, int *count) {
    for (int d = lane; d < DIGITS; d += 32) count[d] = 0;
    __syncwarp();
    for (int j = lane; j < WARP_SHARE && begin + j < k.N; j += 32)
        atomicAdd(&count[k.digit_of(k.token_at(begin + j))], 1); /* integers: in any order the same */
    __syncwarp();
}

/* counts [blocks, DIGITS] */
__global__ void __launch_bounds__(THREADS) count_digits(keys k, int32_t *counts) {
    __shared__ int count[WARPS][DIGITS];
    const int warp = threadIdx.x / 32, d = threadIdx.x;
    count_warp(k, (int64_t)blockIdx.x * SHARE + warp * WARP_SHARE, d % 32, count[warp]);
    __syncthreads();
    int sum = 0;
    for (int w = 0; w < WARPS; w++) sum += count[w][d];
    counts[(int64_t)blockIdx.x * DIGITS + d] = sum;
}

/* The sum of x over threads before this one. */
__device__ int sum_before(int x) {
    __shared__ int total[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = x;
    for (int d = 1; d < 32; d *= 2) {
        int y = __shfl_up_sync(~0u, sum, d);
        if (lane >= d) sum += y;
    }
    if (lane == 31) total[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++) sum += total[w];
    return sum - x;
}

__global__ void __launch_bounds__(THREADS) move_tokens(keys k, const int32_t *counts, int32_t *to) {
    __shared__ int at[WARPS][DIGITS]; /* first the counts, then where the next of the digit goes */
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = threadIdx.x;
    const int64_t begin = (int64_t)blockIdx.x * SHARE + warp * WARP_SHARE;
    count_warp(k, begin, lane, at[warp]);
    int all = 0, before = 0;
    for (unsigned b = 0; b < gridDim.x; b++) {
        int n = counts[(int64_t)b * DIGITS + d];
        all += n;
        before += b < blockIdx.x ? n : 0;
    }
    before += sum_before(all); /* all warps have counted now */
    for (int w = 0; w < WARPS; w++) {
        int n = at[w][d];
        at[w][d] = before;
        before += n;
    }
    __syncthreads();
    for (int j = 0; j < WARP_SHARE && begin + j < k.N; j += 32) {
        const int64_t i = begin + j + lane;
        const bool there = i < k.N;
        const int32_t token = there ? k.token_at(i) : 0;
        const int digit = there ? k.digit_of(token) : DIGITS;
        const unsigned same = __match_any_sync(~0u, digit), earlier = same & ((1u << lane) - 1);
        if (there) to[at[warp][digit] + __popc(earlier)] = token;
        __syncwarp();
        if (there && !earlier) at[warp][digit] += __popc(same);
        __syncwarp();
    }
}

} // namespace

static int64_t blocks_for(int64_t N) {
    return (N + SHARE - 1) / SHARE;
}

size_t pn_sort_scratch(int64_t N) {
    return (size_t)(2 * N + blocks_for(N) * DIGITS) * sizeof(int32_t);
}

pn_status pn_cuda_sort_by_id(const char *name, const int32_t *ids, int64_t N, int64_t V, void *scratch,
                             const int32_t **token) {
    PN_ASSERT(N >= 1 && N <= PN_SORT_MOST);
    int32_t *counts = (int32_t *)scratch, *to = counts + blocks_for(N) * DIGITS, *other = to + N;
    const unsigned blocks = (unsigned)blocks_for(N);
    keys k = { ids, NULL, N, (uint32_t)(V < INT32_MAX ? V : INT32_MAX), 0 };
    do { /* V itself is a key too */
        count_digits<<<blocks, THREADS, 0, pn_cuda_stream()>>>(k, counts);
        PN_TRY(pn_cuda_launched(name));
        move_tokens<<<blocks, THREADS, 0, pn_cuda_stream()>>>(k, counts, to);
        PN_TRY(pn_cuda_launched(name));
        k.token = to;
        to = other;
        other = (int32_t *)k.token;
        k.shift += BITS;
    } while (k.shift < 32 && k.V >> k.shift);
    *token = k.token;
    return PN_OK;
}
