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
#include "tensor_core.cuh"

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

/* For rows of elements of type T; what would keep more than MOST pieces keeps none. 3 pieces are kept where MOST is 3.
 */
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
    if (MOST == 3 && whole && d % W == 0 && pieces % 3 == 0 && pieces <= 96 && (pieces / 3 & (pieces / 3 - 1)) == 0)
        return { 3, dim3((unsigned)pieces / 3, PN_TEAM_THREADS / ((unsigned)pieces / 3)) }; /* no thread is idle */
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
    static_assert(MOST >= 1 && MOST <= PN_TEAM_KEEPS, "what a thread keeps");
    constexpr int W = pn_vector<T>::n;
    if (team.keeps == 0) launch(pn_team_kind<1, 0>{});
    if (team.keeps == 1) launch(pn_team_kind<W, 1>{});
    if constexpr (MOST >= 2)
        if (team.keeps == 2) launch(pn_team_kind<W, 2>{});
    if constexpr (MOST == 3)
        if (team.keeps == 3) launch(pn_team_kind<W, 3>{});
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

/* The rows of this thread's team in this block: n, and d = 0 past the last. */
struct pn_row_walk {
    const pn_rows &r;
    unsigned group; /* of 32 bits, as a grid is: to divide 64 would take longer than a row */
    int64_t begin, end, token, n, d;
    __device__ pn_row_walk(const pn_rows &rows) : r(rows) {
        const unsigned groups = (unsigned)r.groups, of = blockIdx.x / groups;
        group = blockIdx.x - of * groups;
        begin = of * r.run;
        end = begin + r.run < r.tokens ? begin + r.run : r.tokens;
        go(begin + threadIdx.y);
    }
    __device__ void go(int64_t to) {
        token = to;
        d = token < end ? r.d : 0;
        n = (d ? token : begin) * r.groups + group;
    }
    __device__ void next() { go(token + blockDim.y); }
};

/* use(n, d, load(n, d)) for them; every thread of the block calls both equally often. */
template <class LOAD, class USE> __device__ void pn_each_row(const pn_rows &r, LOAD load, USE use) {
    pn_row_walk at(r);
    for (int64_t first = at.begin; first < at.end; first += blockDim.y, at.next()) use(at.n, at.d, load(at.n, at.d));
}
/* The same, but the next row is loaded before this one is used: pays where a block also reads weights. */
template <class LOAD, class USE> __device__ void pn_each_row_ahead(const pn_rows &r, LOAD load, USE use) {
    pn_row_walk at(r), ahead(r);
    auto row = load(at.n, at.d);
    for (int64_t first = at.begin; first < at.end; first += blockDim.y, at.next()) {
        ahead.next();
        auto next = load(ahead.n, ahead.d);
        use(at.n, at.d, row);
        row = next;
    }
}

/* ---- rows that wait in shared memory ---- */

/* Copies into shared memory go on while a thread computes, which loads into registers do not: a wait for any of these
 * waits for all. A thread reads only what it copied itself, so there are no barriers. */
template <int K> constexpr int pn_stages = K == PN_TEAM_KEEPS ? 2 : 3;

extern __shared__ uint4 pn_staged[]; /* all stages */

/* As pn_row, of elements that make pieces of 16 bytes, in place `operand` of a stage that has OPERANDS. */
template <class T, int W, int K, int OPERANDS> struct pn_staged_row {
    const T *row;
    uint32_t slot; /* of this thread's first piece */
    __device__ pn_staged_row(const T *at, int stage, int operand) : row(at) {
        const unsigned threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
        slot = pn_shared(pn_staged + (unsigned)(stage * OPERANDS + operand) * K * threads + thread);
    }
    __device__ uint32_t at(int j) const {
        return slot + (uint32_t)j * blockDim.x * blockDim.y * (uint32_t)sizeof(uint4);
    }
    __device__ void load(int j, int64_t i) const {
        if (K > 0) pn_copy16(at(j), row + i, true);
    }
    __device__ pn_lanes<W> get(int j, int64_t i) const {
        if constexpr (K > 0) {
            const uint4 words = pn_shared_piece(at(j));
            return pn_piece_lanes(*(const pn_piece<T, W> *)&words);
        } else {
            return pn_lanes_at<W>(row + i);
        }
    }
};
/* load(n, d, stage) starts copying a row and returns what else there is of it, in registers: statistics, or PN_NO_MORE;
 * use(n, d, stage, more) finds both. */
enum pn_no_more { PN_NO_MORE };

template <int K, class LOAD, class USE> __device__ void pn_each_staged_row(const pn_rows &r, LOAD load, USE use) {
    enum { AHEAD = pn_stages<K> - 1 };
    pn_row_walk at(r), ahead(r);
    int stage = 0, next = 0;
    decltype(load(0, 0, 0)) more[AHEAD + 1];
#pragma unroll
    for (int k = 0; k < AHEAD; k++, ahead.next()) {
        more[k] = load(ahead.n, ahead.d, next++);
        pn_copies_commit();
    }
    for (int64_t first = at.begin; first < at.end; first += blockDim.y, at.next(), ahead.next()) {
        more[AHEAD] = load(ahead.n, ahead.d, next);
        pn_copies_commit();
        pn_copies_wait<AHEAD>();
        use(at.n, at.d, stage, more[0]);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) more[k] = more[k + 1];
        stage = stage + 1 < pn_stages<K> ? stage + 1 : 0;
        next = next + 1 < pn_stages<K> ? next + 1 : 0;
    }
    pn_copies_wait<0>();
}

/* Every GPU has this much shared memory for a block. */
enum { PN_STAGES_MOST = 96 << 10 };

template <class T, int MOST> size_t pn_stages_bytes(const pn_team<T, MOST> &team, int operands) {
    int stages = team.keeps == PN_TEAM_KEEPS ? pn_stages<PN_TEAM_KEEPS> : pn_stages<1>;
    return (size_t)(stages * operands * team.keeps) * team.threads.x * team.threads.y * sizeof(uint4);
}
/* A team for rows of `operands` operands that wait in shared memory. */
template <class T, int MOST> pn_team<T, MOST> pn_cuda_staged_team(int64_t d, bool whole, int operands) {
    const auto team = pn_cuda_team<T, MOST>(d, whole);
    return pn_stages_bytes(team, operands) <= PN_STAGES_MOST ? team : pn_cuda_team<T, MOST>(d, false);
}
/* Before the launch of a kernel with that much beside the little that every one has; 48 KiB of both need no asking. The
 * launch reports what goes wrong here. */
template <class KERNEL> void pn_cuda_allow_shared(KERNEL *kernel, size_t bytes) {
    if (bytes > 40 << 10) (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

/* Without sums over rows. blocks 0: a row to a team. Where the next row is on its way, in registers or in shared
 * memory, a team has a few of them if that leaves this many blocks. */
enum { PN_ROWS_AHEAD = 2048, PN_ROWS_STAGED = 512, PN_ROWS_EACH = 8 };

template <class T, int MOST> pn_rows pn_cuda_rows(pn_rows r, const pn_team<T, MOST> &team, int64_t blocks) {
    int64_t teams = team.threads.y, each = blocks ? r.tokens * r.groups / (teams * blocks) : 1;
    r.run = teams * (each < 1 ? 1 : each < PN_ROWS_EACH ? each : PN_ROWS_EACH);
    return r;
}

/* ---- sums over rows ---- */

/* A second kernel adds the runs up. They are cut by the shape alone, and there are enough for any GPU of today. */
enum { PN_SUMS_BLOCKS = 1024, PN_SUMS_LEAST = 8 };

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
    /* Teams are added in order, by way of `memory`, `elements` of it. Every thread of the block comes. */
    static constexpr int elements = K == PN_TEAM_KEEPS ? W : PN_TEAM_THREADS * (K > 0 ? K : 1) * W;
    __device__ void finish(int64_t d, float *memory) const {
        if (K == 0 || !part) return;
        if (blockDim.y == 1) {
            pn_pieces<W, K>(d, [&](int j, int64_t i) { pn_lanes_put(part + i, sum[j]); });
            return;
        }
        __syncthreads(); /* it may still be read, from another sum */
        pn_pieces<W, K>(d, [&](int j, int64_t i) { pn_lanes_put(memory + threadIdx.y * d + i, sum[j]); });
        __syncthreads();
        for (int64_t c = threadIdx.y * blockDim.x + threadIdx.x; c < d; c += blockDim.x * blockDim.y) {
            float all = memory[c];
            for (unsigned y = 1; y < blockDim.y; y++) all += memory[y * d + c];
            part[c] = all;
        }
    }
};

enum { PN_PART_COLUMNS = 16, PN_PART_THREADS = 512 };

/* The gradients of a block's columns: the sums of part[.., c], part: [parts, columns]. It is all waiting: of
 * PN_SUMS_BLOCKS parts a thread loads its share, W columns of 8 rows, at once. */
template <int W>
__global__ void __launch_bounds__(PN_PART_THREADS)
    pn_parts_finish(pn_gradient<float> d, const float *part, int64_t parts, int64_t columns) {
    enum { ACROSS = PN_PART_COLUMNS / W, ROWS = PN_PART_THREADS / ACROSS };
    alignas(16) __shared__ float sums[ROWS * PN_PART_COLUMNS];
    const int across = (int)threadIdx.x % ACROSS * W, row = (int)threadIdx.x / ACROSS;
    const int64_t first = (int64_t)blockIdx.x * PN_PART_COLUMNS, c = first + across;
    pn_lanes<W> sum = {};
#pragma unroll 8
    for (int64_t p = row; p < parts && c < columns; p += ROWS) {
        const pn_lanes<W> v = pn_lanes_at<W>(part + p * columns + c);
#pragma unroll
        for (int k = 0; k < W; k++) sum.x[k] += v.x[k];
    }
    pn_lanes_put(sums + row * PN_PART_COLUMNS + across, sum);
    for (int left = ROWS / 2; left > 0; left /= 2) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < left * PN_PART_COLUMNS; i += PN_PART_THREADS)
            sums[i] += sums[left * PN_PART_COLUMNS + i];
    }
    if (threadIdx.x < PN_PART_COLUMNS && first + threadIdx.x < columns)
        d.put(first + threadIdx.x, pn_lanes<1>{ { sums[threadIdx.x] } }); /* which this thread added up itself */
}

/* What pn_row_sums left, or `columns` values that every block left, as the gradient [groups, columns] of an input, if
 * that is wanted. */
static inline pn_status pn_cuda_row_sums_finish(const char *name, const pn_op_call *c, int input, const pn_rows &r,
                                                int64_t columns, const float *part) {
    const pn_gradient<float> d = pn_cuda_gradient<float>(c, input);
    if (!d.to) return PN_OK;
    const int64_t all = r.groups * columns;
    auto kernel = all % 4 == 0 && pn_cuda_in_pieces<4>(part) ? pn_parts_finish<4> : pn_parts_finish<1>;
    kernel<<<pn_cuda_blocks(all, PN_PART_COLUMNS), PN_PART_THREADS, 0, pn_cuda_stream()>>>(d, part, pn_rows_runs(r),
                                                                                           all);
    return pn_cuda_launched(name);
}

#endif
