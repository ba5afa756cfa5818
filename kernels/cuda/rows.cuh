/* Norms and other sums within a row of channels.
 *
 * A row belongs to a team of threads of one block: thread x of it takes pieces x, x + team, .. of W channels, keeps up
 * to K of every operand in registers, so that memory is read once, and finds the sum over the row with the others. A
 * block has several teams for narrow rows, one for wide ones; rows that no team can keep (K = 0: too wide, or not made
 * of whole pieces) are read again from the cache.
 *
 *     pn_pieces<W, K>(d, [&](int j, int64_t i) { .. })      this thread's pieces: piece j of those kept, channels i ..
 *
 * Threads whose team has no row come along with d = 0: sums need every thread of the block. */
#ifndef PN_KERNELS_CUDA_ROWS_CUH
#define PN_KERNELS_CUDA_ROWS_CUH

#include "lanes.cuh"

enum { PN_TEAM_THREADS = 256, PN_TEAM_KEEPS = 4 };

/* The most threads in a block that keeps K pieces of W: enough for 8192 channels of either type. */
template <int W, int K>
constexpr int pn_team_threads = K == PN_TEAM_KEEPS &&W <= 4 ? 2 * PN_TEAM_THREADS : PN_TEAM_THREADS;

template <int W, int K, class F> __device__ void pn_pieces(int64_t d, F f) {
    if constexpr (K > 0) {
#pragma unroll
        for (int j = 0; j < K; j++) {
            int i = (int)(threadIdx.x + j * blockDim.x) * W;
            if (i < d) f(j, (int64_t)i);
        }
    } else {
        for (int64_t i = threadIdx.x * W; i < d; i += blockDim.x * W) f(0, i);
    }
}

/* A row of an operand. load() each piece, then get() it any number of times. */
template <class T, int W, int K> struct pn_row {
    const T *row;
    pn_piece<T, W> kept[K > 0 ? K : 1];
    __device__ pn_row(const T *at) : row(at) {}
    __device__ void load(int j, int64_t i) {
        if (K > 0) kept[j] = pn_piece_at<W>(row + i);
    }
    __device__ pn_lanes<W> get(int j, int64_t i) const {
        return K > 0 ? pn_piece_lanes(kept[j]) : pn_lanes_at<W>(row + i);
    }
};

/* x[k] becomes its sum over the team, for every thread of it. */
template <int N> __device__ void pn_team_sum(float (&x)[N]) {
    const int team = (int)blockDim.x;
    for (int step = (team < 32 ? team : 32) / 2; step > 0; step /= 2)
#pragma unroll
        for (int k = 0; k < N; k++) x[k] += __shfl_xor_sync(0xffffffffu, x[k], step);
    if (team <= 32) return;
    __shared__ float part[N][2 * PN_TEAM_THREADS / 32];
    __syncthreads(); /* part may still be read from the sum before */
    if (threadIdx.x % 32 == 0)
#pragma unroll
        for (int k = 0; k < N; k++) part[k][threadIdx.x / 32] = x[k];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < N; k++) {
        x[k] = part[k][0];
        for (int i = 1; i < team / 32; i++) x[k] += part[k][i];
    }
}

/* ---- the host's side ---- */

/* For rows of elements of type T; what would keep more than MOST pieces keeps none. */
template <class T, int MOST> struct pn_team {
    int keeps;    /* K */
    dim3 threads; /* x: of a team; y: teams of a block */
};
template <int WIDTH, int KEEPS> struct pn_team_kind { static constexpr int W = WIDTH, K = KEEPS; };

static inline unsigned pn_team_warps(int64_t threads) {
    return (unsigned)(threads > 1 ? (threads + 31) / 32 * 32 : 32);
}

/* For rows of d elements. whole: every operand's rows can be read in pieces (pn_cuda_in_pieces). */
template <class T, int MOST> pn_team<T, MOST> pn_cuda_team(int64_t d, bool whole) {
    constexpr int W = pn_vector<T>::n;
    const int64_t pieces = d / W;
    if (whole && d % W == 0 && pieces <= 32) {
        unsigned team = pieces <= 8 ? 8 : pieces <= 16 ? 16 : 32;
        return { 1, dim3(team, PN_TEAM_THREADS / team) };
    }
    for (int keeps = 2; whole && d % W == 0 && keeps <= MOST; keeps *= 2) {
        int64_t most = keeps == 4 ? pn_team_threads<W, 4> : pn_team_threads<W, 2>;
        unsigned team = pn_team_warps((pieces + keeps - 1) / keeps);
        if (team == 32) return { keeps, dim3(team, PN_TEAM_THREADS / team) };
        if (team <= most) return { keeps, dim3(team) };
    }
    return { 0, dim3(d < PN_TEAM_THREADS ? pn_team_warps(d) : (unsigned)PN_TEAM_THREADS) };
}

/* launch(kind) for the kind of team, whose W and K are template arguments of the kernel that it launches. */
template <class T, int MOST, class F>
pn_status pn_cuda_with_team(const char *name, const pn_team<T, MOST> &team, F launch) {
    static_assert(MOST == 1 || MOST == 2 || MOST == PN_TEAM_KEEPS, "what a thread keeps");
    constexpr int W = pn_vector<T>::n;
    if (team.keeps == 0) launch(pn_team_kind<1, 0>{});
    if (team.keeps == 1) launch(pn_team_kind<W, 1>{});
    if constexpr (MOST >= 2)
        if (team.keeps == 2) launch(pn_team_kind<W, 2>{});
    if constexpr (MOST >= PN_TEAM_KEEPS)
        if (team.keeps == PN_TEAM_KEEPS) launch(pn_team_kind<W, PN_TEAM_KEEPS>{});
    return pn_cuda_launched(name);
}

/* ---- rows to blocks ---- */

/* tokens * groups rows of d channels: row n is group n % groups of token n / groups, and a weight per channel of a
 * token is [groups, d]. A block takes one group of a run of tokens: it reads weights once, and a thread can sum the
 * same channels over rows. Block b has group b % groups of run b / groups. */
struct pn_rows {
    int64_t tokens, groups, d, run; /* tokens of a run */
};

static inline int64_t pn_rows_runs(const pn_rows &r) {
    return (r.tokens + r.run - 1) / r.run;
}
static inline unsigned pn_rows_blocks(const pn_rows &r) {
    return (unsigned)(pn_rows_runs(r) * r.groups);
}

/* use(n, d, load(n, d)) for the rows of this thread's team, with d = 0 where it has none. The next row is loaded before
 * this one is used, so that memory is never idle. */
template <class LOAD, class USE> __device__ void pn_each_row(const pn_rows &r, LOAD load, USE use) {
    const int64_t group = blockIdx.x % r.groups, begin = blockIdx.x / r.groups * r.run;
    const int64_t end = begin + r.run < r.tokens ? begin + r.run : r.tokens;
    int64_t token = begin + threadIdx.y, n = (token < end ? token : begin) * r.groups + group;
    int64_t d = token < end ? r.d : 0;
    auto next = load(n, d);
    for (int64_t first = begin; first < end; first += blockDim.y) {
        const int64_t now = n, width = d;
        const auto row = next;
        token += blockDim.y;
        d = token < end ? r.d : 0;
        if (d) n = token * r.groups + group;
        next = load(n, d);
        use(now, width, row);
    }
}

/* Without sums over rows: a few rows to a team where there are many, for what a block does once. */
enum { PN_ROWS_BLOCKS = 2048, PN_ROWS_EACH = 8 };

template <class T, int MOST> pn_rows pn_cuda_rows(pn_rows r, const pn_team<T, MOST> &team) {
    int64_t teams = team.threads.y, each = r.tokens * r.groups / (teams * PN_ROWS_BLOCKS);
    r.run = teams * (each < 1 ? 1 : each < PN_ROWS_EACH ? each : PN_ROWS_EACH);
    return r;
}

/* ---- sums over rows ---- */

/* A second kernel adds the runs up. They are cut by the shape alone, and there are enough for any GPU of today. */
enum { PN_SUMS_BLOCKS = 512, PN_SUMS_LEAST = 8 };

static inline pn_rows pn_cuda_rows_to_sum(pn_rows r) {
    int64_t wanted = r.groups < PN_SUMS_BLOCKS ? PN_SUMS_BLOCKS / r.groups : 1, run = (r.tokens + wanted - 1) / wanted;
    r.run = run < PN_SUMS_LEAST ? PN_SUMS_LEAST : (run + PN_SUMS_LEAST - 1) / PN_SUMS_LEAST * PN_SUMS_LEAST;
    return r;
}
/* Elements for the sums of `columns` values of every group. */
static inline int64_t pn_row_sums_elems(const pn_rows &r, int64_t columns) {
    return (pn_rows_runs(r) * r.groups * columns + 15) / 16 * 16;
}

/* The sum of a value per channel over the rows of a block. part: [blocks, d] of the scratch, or NULL: not wanted. */
template <int W, int K> struct pn_row_sums {
    float *part;
    pn_lanes<W> sum[K > 0 ? K : 1];
    __device__ pn_row_sums(float *parts, int64_t d) : part(parts ? parts + (int64_t)blockIdx.x * d : NULL) {
#pragma unroll
        for (int j = 0; j < (K > 0 ? K : 1); j++)
#pragma unroll
            for (int k = 0; k < W; k++) sum[j].x[k] = 0;
        if (K == 0 && part) pn_pieces<W, K>(d, [&](int, int64_t i) { pn_lanes_put(part + i, sum[0]); });
    }
    __device__ void add(int j, int64_t i, const pn_lanes<W> &v) {
#pragma unroll
        for (int k = 0; k < W; k++)
            if (K > 0)
                sum[j].x[k] += v.x[k];
            else
                part[i + k] += v.x[k]; /* of this thread alone */
    }
    /* Teams are added in order. Every thread of the block comes. */
    __device__ void finish(int64_t d) const {
        if (K == 0 || !part) return;
        if (blockDim.y == 1) {
            pn_pieces<W, K>(d, [&](int j, int64_t i) { pn_lanes_put(part + i, sum[j]); });
            return;
        }
        alignas(16) __shared__ float team[K == PN_TEAM_KEEPS ? W : PN_TEAM_THREADS * (K > 0 ? K : 1) * W];
        __syncthreads(); /* team may still be read from another sum */
        pn_pieces<W, K>(d, [&](int j, int64_t i) { pn_lanes_put(team + threadIdx.y * d + i, sum[j]); });
        __syncthreads();
        for (int64_t c = threadIdx.y * blockDim.x + threadIdx.x; c < d; c += blockDim.x * blockDim.y) {
            float all = team[c];
            for (unsigned y = 1; y < blockDim.y; y++) all += team[y * d + c];
            part[c] = all;
        }
    }
};

enum { PN_PART_COLUMNS = 32, PN_PART_ROWS = 32 };

/* The gradient of column c: the sum of part[.., c], part: [parts, columns]. */
static __global__ void __launch_bounds__(PN_PART_COLUMNS *PN_PART_ROWS)
    pn_parts_finish(pn_gradient<float> d, const float *part, int64_t parts, int64_t columns) {
    __shared__ float row[PN_PART_ROWS][PN_PART_COLUMNS];
    const int64_t c = (int64_t)blockIdx.x * PN_PART_COLUMNS + threadIdx.x;
    float sum = 0;
#pragma unroll 8
    for (int64_t p = threadIdx.y; p < parts; p += PN_PART_ROWS) sum += c < columns ? part[p * columns + c] : 0;
    row[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= columns) return;
    for (int i = 1; i < PN_PART_ROWS; i++) sum += row[i][threadIdx.x];
    d.put(c, pn_lanes<1>{ { sum } });
}

/* What pn_row_sums left, or `columns` values that every block left, as the gradient [groups, columns] of an input, if
 * that is wanted. */
static inline pn_status pn_cuda_row_sums_finish(const char *name, const pn_op_call *c, int input, const pn_rows &r,
                                                int64_t columns, const float *part) {
    const pn_gradient<float> d = pn_cuda_gradient<float>(c, input);
    if (!d.to) return PN_OK;
    dim3 threads(PN_PART_COLUMNS, PN_PART_ROWS);
    pn_parts_finish<<<pn_cuda_blocks(r.groups * columns, PN_PART_COLUMNS), threads, 0, pn_cuda_stream()>>>(
        d, part, pn_rows_runs(r), r.groups * columns);
    return pn_cuda_launched(name);
}

#endif
