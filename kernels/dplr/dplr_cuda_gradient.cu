/* dq, dk, da, db, dg of one chunk and head per block, from V, dO, P and dP of its tokens, its start state S and the
 * gradient G of the state at its end. With L_i = g_1 + .. + g_i, F = L - g, C the last token:
 *
 *     dq_i = sum over j <= i of (dO_i V_j) k_j e^{L_i - L_j} + (dO_i P_j) b_j e^{L_i - L_j}    + e^{L_i} S dO_i
 *     da_i = sum over j <  i of (dP_i V_j) k_j e^{F_i - L_j} + (dP_i P_j) b_j e^{F_i - L_j}    + e^{F_i} S dP_i
 *     dk_j = sum over i of (dO_i V_j) q_i e^{L_i - L_j} + (dP_i V_j) a_i e^{F_i - L_j}         + e^{L_C - L_j} G V_j
 *     db_j = the same with P_j for V_j
 *
 * The products of values are scores, kept for all pairs of tokens as 4 x 4 blocks of four tokens by four. The sums over
 * pairs are done channel by channel: a thread has four tokens and four channels, walks away from them through the other
 * tokens in groups of four, and multiplies by one more token's decay at each.
 *
 * What a pair, or a token and a state, adds to dq_i q_i or to dk_j k_j also reaches the decays of all tokens between
 * the two. dg sums those, rows with one sign and columns with the other. Pairs that no decay lies between (i = j; for
 * a, i = j + 1) stay out of that: strong decays would drown in them. */
#include "dplr_cuda.cuh"

namespace {

const char name[] = "dplr/cuda-gradient";

enum {
    C = PN_CHUNK,
    GROUPS = C / 4,                     /* of four tokens */
    BLOCKS = GROUPS * (GROUPS + 1) / 2, /* of 4 x 4 scores on and below the diagonal */
    CHANNELS = 32,                      /* of the keys at a time */
    THREADS = GROUPS * CHANNELS / 4,
    VALUES = 32, /* columns at a time */
    LD = C + 4
};

/* Scores: rows dO (q) and dP (a), columns V (k) and P (b). */
enum { QK, QB, AK, AB, SCORES };

struct rows_shared { /* the products of values: column by column */
    float dO[VALUES][LD], dP[VALUES][LD], V[VALUES][LD], P[VALUES][LD];
    float S[VALUES][CHANNELS + 4], G[VALUES][CHANNELS + 4];
};
struct pairs_shared { /* the sums over pairs */
    float q[C][CHANNELS], k[C][CHANNELS], a[C][CHANNELS], b[C][CHANNELS], decay[C][CHANNELS];
};
struct shared {
    float score[SCORES][BLOCKS][4][4]; /* block (i, j): tokens 4 i .. and 4 j .. */
    float near_k[C], near_b[C];        /* the scores AK, AB of a token with the one before, zero in `score` */
    float part[GROUPS][CHANNELS];
    union {
        rows_shared rows;
        pairs_shared pairs;
    };
};

struct place {
    int chunk, head, begin, n;
};

__device__ __forceinline__ int block_of(int i, int j) {
    return i * (i + 1) / 2 + j;
}

/* Columns first .. of four matrices of the chunk's tokens, turned; scale goes with dO. */
template <class T> __device__ void take_values(const pn_dplr_cuda<T> &c, const place &p, int first, rows_shared *to) {
    const int x = (int)threadIdx.x % VALUES;
    const bool in = first + x < c.dv;
    for (int i = (int)threadIdx.x / VALUES; i < C; i += THREADS / VALUES) {
        const bool there = in && i < p.n;
        const int64_t at = there ? ((int64_t)(p.begin + i) * c.heads + p.head) * c.dv + first + x : 0;
        to->dO[x][i] = there && c.dout ? c.scale * pn_load(c.dout + at) : 0.0f;
        to->dP[x][i] = there ? pn_load(c.dp + at) : 0.0f;
        to->V[x][i] = there ? pn_load(c.v + at) : 0.0f;
        to->P[x][i] = there ? pn_load(c.p + at) : 0.0f;
    }
}
template <class T>
__device__ void take_states(const pn_dplr_cuda<T> &c, const place &p, int channel, int first, rows_shared *to) {
    const int x = (int)threadIdx.x % VALUES;
    for (int n = (int)threadIdx.x / VALUES; n < CHANNELS; n += THREADS / VALUES) {
        const bool there = first + x < c.dv && channel + n < c.dk;
        const int64_t row = there ? ((int64_t)p.chunk * c.heads + p.head) * c.dk + channel + n : 0;
        to->S[x][n] = there ? pn_load(c.states + row * c.dv + first + x) : 0.0f;
        to->G[x][n] = there ? pn_load(c.G + row * c.dv + first + x) : 0.0f;
    }
}
/* Tokens past the end are zeros that nothing decays through. */
template <class T> __device__ void take_keys(const pn_dplr_cuda<T> &c, const place &p, int channel, pairs_shared *to) {
    const int n = (int)threadIdx.x % CHANNELS;
    for (int i = (int)threadIdx.x / CHANNELS; i < C; i += THREADS / CHANNELS) {
        const bool there = i < p.n && channel + n < c.dk;
        const int64_t at = there ? ((int64_t)(p.begin + i) * c.heads + p.head) * c.dk + channel + n : 0;
        to->q[i][n] = there ? pn_load(c.q + at) : 0.0f;
        to->k[i][n] = there ? pn_load(c.k + at) : 0.0f;
        to->a[i][n] = there ? pn_load(c.a + at) : 0.0f;
        to->b[i][n] = there ? pn_load(c.b + at) : 0.0f;
        to->decay[i][n] = there ? expf(c.g[at]) : 1.0f;
    }
}

__device__ __forceinline__ void take4(float x[4], const float *from) {
    const float4 y = *(const float4 *)from;
    x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
}

/* y[r][s] += left[r] right[s] */
__device__ __forceinline__ void add_outer(float y[4][4], const float left[4], const float right[4]) {
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int s = 0; s < 4; s++) y[r][s] += left[r] * right[s];
}

/* All scores. A thread sums the four scores of one block below the diagonal, and one score of a block on it. */
template <class T> __device__ void make_scores(const pn_dplr_cuda<T> &c, const place &p, shared *m) {
    static_assert(BLOCKS - GROUPS <= THREADS && SCORES * GROUPS <= THREADS, "a block each");
    const int id = (int)threadIdx.x;
    int i = 1, j = id; /* its block below the diagonal */
    while (j >= i) j -= i++;
    const bool below = i < GROUPS;
    if (!below) i = j = 0;
    const int on = id % GROUPS, kind = id / GROUPS;
    const float(*on_row)[LD] = kind < AK ? m->rows.dO : m->rows.dP;
    const float(*on_column)[LD] = kind % 2 ? m->rows.P : m->rows.V;
    float far[SCORES][4][4] = {}, close[4][4] = {};
    for (int first = 0; first < c.dv; first += VALUES) {
        __syncthreads();
        take_values(c, p, first, &m->rows);
        __syncthreads();
#pragma unroll 4
        for (int x = 0; x < VALUES; x++) {
            float dO[4], dP[4], V[4], P[4];
            take4(dO, &m->rows.dO[x][4 * i]);
            take4(dP, &m->rows.dP[x][4 * i]);
            take4(V, &m->rows.V[x][4 * j]);
            take4(P, &m->rows.P[x][4 * j]);
            add_outer(far[QK], dO, V);
            add_outer(far[QB], dO, P);
            add_outer(far[AK], dP, V);
            add_outer(far[AB], dP, P);
        }
        if (kind < SCORES)
#pragma unroll 4
            for (int x = 0; x < VALUES; x++) {
                float row[4], column[4];
                take4(row, &on_row[x][4 * on]);
                take4(column, &on_column[x][4 * on]);
                add_outer(close, row, column);
            }
    }
    if (below)
#pragma unroll
        for (int s = 0; s < SCORES; s++)
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int y = 0; y < 4; y++) {
                    const bool apart = s >= AK && j == i - 1 && r == 0 && y == 3;
                    if (apart) (s == AK ? m->near_k : m->near_b)[4 * i] = far[s][r][y];
                    m->score[s][block_of(i, j)][r][y] = apart ? 0.0f : far[s][r][y];
                }
    if (kind < SCORES)
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int y = 0; y < 4; y++) {
                if (kind >= AK && r == y + 1) (kind == AK ? m->near_k : m->near_b)[4 * on + r] = close[r][y];
                m->score[kind][block_of(on, on)][r][y] = close[r][y];
            }
    if (id == 0) m->near_k[0] = m->near_b[0] = 0;
}

/* What a thread's four tokens and channels get through the states. */
struct through_states {
    float q[4][4], a[4][4], k[4][4], b[4][4]; /* S dO, S dP, G V, G P */
    float SG[4];                              /* this thread's part of the sums of the rows of S * G */
};
template <class T>
__device__ void go_through_states(const pn_dplr_cuda<T> &c, const place &p, int channel, int token, int at, shared *m,
                                  through_states *y) {
    for (int first = 0; first < c.dv; first += VALUES) {
        __syncthreads();
        take_values(c, p, first, &m->rows);
        take_states(c, p, channel, first, &m->rows);
        __syncthreads();
#pragma unroll 2
        for (int x = 0; x < VALUES; x++) {
            float dO[4], dP[4], V[4], P[4], S[4], G[4];
            take4(dO, &m->rows.dO[x][token]);
            take4(dP, &m->rows.dP[x][token]);
            take4(V, &m->rows.V[x][token]);
            take4(P, &m->rows.P[x][token]);
            take4(S, &m->rows.S[x][at]);
            take4(G, &m->rows.G[x][at]);
            add_outer(y->q, dO, S);
            add_outer(y->a, dP, S);
            add_outer(y->k, V, G);
            add_outer(y->b, P, G);
            if (x % GROUPS == token / 4)
#pragma unroll
                for (int n = 0; n < 4; n++) y->SG[n] += S[n] * G[n];
        }
    }
}

/* Tokens before the thread's own: dq and da of its tokens; decays up to the token before its first go with the keys. */
__device__ void sum_before(const shared *m, int group, int at, float dq[4][4], float da[4][4]) {
    float decay[4] = { 1, 1, 1, 1 };
    for (int other = group - 1; other >= 0; other--) {
        float k[4][4], b[4][4];
#pragma unroll
        for (int s = 3; s >= 0; s--) {
            float e[4];
            take4(k[s], &m->pairs.k[4 * other + s][at]);
            take4(b[s], &m->pairs.b[4 * other + s][at]);
            take4(e, &m->pairs.decay[4 * other + s][at]);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                k[s][n] *= decay[n];
                b[s][n] *= decay[n];
                decay[n] *= e[n];
            }
        }
        const int block = block_of(group, other);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            float qk[4], qb[4], ak[4], ab[4];
            take4(qk, m->score[QK][block][r]);
            take4(qb, m->score[QB][block][r]);
            take4(ak, m->score[AK][block][r]);
            take4(ab, m->score[AB][block][r]);
#pragma unroll
            for (int s = 0; s < 4; s++)
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    dq[r][n] += qk[s] * k[s][n] + qb[s] * b[s][n];
                    da[r][n] += ak[s] * k[s][n] + ab[s] * b[s][n];
                }
        }
    }
}
/* Tokens after the thread's own: dk and db of its tokens; decays from the token after its last go with the others. */
__device__ void sum_after(const shared *m, int group, int at, float d_k[4][4], float db[4][4]) {
    float decay[4] = { 1, 1, 1, 1 };
    for (int other = group + 1; other < GROUPS; other++) {
        const int block = block_of(other, group);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            float q[4], a[4], e[4], qk[4], qb[4], ak[4], ab[4];
            take4(q, &m->pairs.q[4 * other + r][at]);
            take4(a, &m->pairs.a[4 * other + r][at]);
            take4(e, &m->pairs.decay[4 * other + r][at]);
            take4(qk, m->score[QK][block][r]);
            take4(qb, m->score[QB][block][r]);
            take4(ak, m->score[AK][block][r]);
            take4(ab, m->score[AB][block][r]);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                a[n] *= decay[n];
                decay[n] *= e[n];
                q[n] *= decay[n];
#pragma unroll
                for (int s = 0; s < 4; s++) {
                    d_k[s][n] += qk[s] * q[n] + ak[s] * a[n];
                    db[s][n] += qb[s] * q[n] + ab[s] * a[n];
                }
            }
        }
    }
}

/* Of channels at .. in all groups: the sum of `part` over the groups first .. end - 1. */
__device__ __forceinline__ void sum_parts(const shared *m, int at, int first, int end, float sum[4]) {
    sum[0] = sum[1] = sum[2] = sum[3] = 0;
    for (int i = first; i < end; i++) {
        float x[4];
        take4(x, &m->part[i][at]);
#pragma unroll
        for (int n = 0; n < 4; n++) sum[n] += x[n];
    }
}
/* Every thread's own four; those of others are there when it returns. */
__device__ __forceinline__ void put_part(shared *m, int group, int at, const float x[4]) {
    __syncthreads();
    *(float4 *)&m->part[group][at] = make_float4(x[0], x[1], x[2], x[3]);
    __syncthreads();
}

template <class T> __device__ __forceinline__ void add_gradient(T *to, int64_t at, const float x[4], int there) {
    if (!to) return;
#pragma unroll
    for (int n = 0; n < 4; n++)
        if (n < there) pn_store(to + at + n, __fadd_rn(pn_load(to + at + n), x[n]));
}

template <class T> __global__ void __launch_bounds__(THREADS, 2) chunk_gradient(const pn_dplr_cuda<T> c) {
    extern __shared__ __align__(16) unsigned char memory[];
    shared *m = (shared *)memory;
    place p;
    p.chunk = (int)(blockIdx.x / c.heads);
    p.head = (int)(blockIdx.x % c.heads);
    p.begin = c.docs.chunk_begin[p.chunk];
    const int last = c.docs.offset[c.docs.chunk_doc[p.chunk] + 1];
    p.n = last - p.begin < C ? last - p.begin : (int)C;
    if (p.n == 0) return;
    const int group = (int)threadIdx.x / (CHANNELS / 4), token = 4 * group;
    const int at = (int)threadIdx.x % (CHANNELS / 4) * 4; /* its first channel, of those taken */

    make_scores(c, p, m);
    for (int channel = 0; channel < c.dk; channel += CHANNELS) {
        through_states state = {};
        go_through_states(c, p, channel, token, at, m, &state);
        __syncthreads();
        take_keys(c, p, channel, &m->pairs);
        put_part(m, group, at, state.SG);
        float SG[4];
        sum_parts(m, at, 0, GROUPS, SG);

        /* the decays of its own tokens, of all before and of all after */
        float e[4][4], whole[4], before[4] = { 1, 1, 1, 1 }, after[4] = { 1, 1, 1, 1 };
#pragma unroll
        for (int r = 0; r < 4; r++) take4(e[r], &m->pairs.decay[token + r][at]);
#pragma unroll
        for (int n = 0; n < 4; n++) whole[n] = e[0][n] * e[1][n] * e[2][n] * e[3][n];
        put_part(m, group, at, whole);
        for (int i = 0; i < GROUPS; i++) {
            float x[4];
            take4(x, &m->part[i][at]);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                if (i < group) before[n] *= x[n];
                if (i > group) after[n] *= x[n];
            }
        }

        float dq[4][4] = {}, da[4][4] = {}, d_k[4][4] = {}, db[4][4] = {};
        sum_before(m, group, at, dq, da);
        sum_after(m, group, at, d_k, db);

        float q[4][4], k[4][4], a[4][4], b[4][4], k_before[4] = {}, b_before[4] = {}, a_after[4] = {};
#pragma unroll
        for (int r = 0; r < 4; r++) {
            take4(q[r], &m->pairs.q[token + r][at]);
            take4(k[r], &m->pairs.k[token + r][at]);
            take4(a[r], &m->pairs.a[token + r][at]);
            take4(b[r], &m->pairs.b[token + r][at]);
        }
        if (token > 0) {
            take4(k_before, &m->pairs.k[token - 1][at]);
            take4(b_before, &m->pairs.b[token - 1][at]);
        }
        if (token + 4 < C) take4(a_after, &m->pairs.a[token + 4][at]);

        const float(*own)[BLOCKS][4][4] = m->score;
        const int block = block_of(group, group);
        float moved[4][4], moved_a[4][4], left[4][4]; /* of dg: for all tokens up to this one; before it; after it */
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float to[4], from[4]; /* decays of its tokens: from its first to r, from after r to its last */
            to[0] = e[0][n], from[3] = 1;
#pragma unroll
            for (int r = 1; r < 4; r++) to[r] = to[r - 1] * e[r][n];
#pragma unroll
            for (int r = 2; r >= 0; r--) from[r] = from[r + 1] * e[r + 1][n];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float to_before = r > 0 ? to[r - 1] : 1.0f;
                dq[r][n] = to[r] * (dq[r][n] + before[n] * state.q[r][n]);
                da[r][n] = to_before * (da[r][n] + before[n] * state.a[r][n]);
                d_k[r][n] *= from[r];
                db[r][n] *= from[r];
            }
#pragma unroll
            for (int s = 0; s < 3; s++) { /* pairs among its tokens that decay */
                float decay = 1;
#pragma unroll
                for (int r = s + 1; r < 4; r++) {
                    if (r > s + 1) {
                        const float ak = own[AK][block][r][s] * decay, ab = own[AB][block][r][s] * decay;
                        da[r][n] += ak * k[s][n] + ab * b[s][n];
                        d_k[s][n] += ak * a[r][n];
                        db[s][n] += ab * a[r][n];
                    }
                    decay *= e[r][n];
                    const float qk = own[QK][block][r][s] * decay, qb = own[QB][block][r][s] * decay;
                    dq[r][n] += qk * k[s][n] + qb * b[s][n];
                    d_k[s][n] += qk * q[r][n];
                    db[s][n] += qb * q[r][n];
                }
            }
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float kept = from[r] * after[n], kS = kept * state.k[r][n], bS = kept * state.b[r][n];
                moved[r][n] = q[r][n] * dq[r][n] - (k[r][n] * d_k[r][n] + b[r][n] * db[r][n]);
                moved_a[r][n] = a[r][n] * da[r][n];
                left[r][n] = k[r][n] * kS + b[r][n] * bS;
                d_k[r][n] += kS;
                db[r][n] += bS;
            }
        }
#pragma unroll
        for (int r = 0; r < 4; r++) { /* pairs that no decay lies between */
            const float qk = own[QK][block][r][r], qb = own[QB][block][r][r];
            const float ak = m->near_k[token + r], ab = m->near_b[token + r];
            const float ak_next = token + r + 1 < C ? m->near_k[token + r + 1] : 0.0f;
            const float ab_next = token + r + 1 < C ? m->near_b[token + r + 1] : 0.0f;
#pragma unroll
            for (int n = 0; n < 4; n++) {
                dq[r][n] += qk * k[r][n] + qb * b[r][n];
                da[r][n] += ak * (r > 0 ? k[r - 1][n] : k_before[n]) + ab * (r > 0 ? b[r - 1][n] : b_before[n]);
                const float next = r < 3 ? a[r + 1][n] : a_after[n];
                d_k[r][n] += qk * q[r][n] + ak_next * next;
                db[r][n] += qb * q[r][n] + ab_next * next;
            }
        }
        float sum[4], later[4], earlier[4];
#pragma unroll
        for (int n = 0; n < 4; n++)
            sum[n] = (moved[0][n] + moved_a[0][n]) + (moved[1][n] + moved_a[1][n]) + (moved[2][n] + moved_a[2][n]) +
                     (moved[3][n] + moved_a[3][n]);
        put_part(m, group, at, sum);
        sum_parts(m, at, group + 1, GROUPS, later);
#pragma unroll
        for (int n = 0; n < 4; n++) sum[n] = left[0][n] + left[1][n] + left[2][n] + left[3][n];
        put_part(m, group, at, sum);
        sum_parts(m, at, 0, group, earlier);
        float dg[4][4];
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float all = before[n] * whole[n] * after[n] * SG[n];
            float sum_left = earlier[n], sum_moved = later[n];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                dg[r][n] = all + sum_left;
                sum_left += left[r][n];
            }
#pragma unroll
            for (int r = 3; r >= 0; r--) {
                sum_moved += moved[r][n];
                dg[r][n] += sum_moved;
                sum_moved += moved_a[r][n];
            }
        }
        const int there = c.dk - channel - at; /* channels that exist */
#pragma unroll
        for (int r = 0; r < 4; r++) {
            if (token + r >= p.n) break;
            const int64_t to = ((int64_t)(p.begin + token + r) * c.heads + p.head) * c.dk + channel + at;
            add_gradient(c.dq, to, dq[r], there);
            add_gradient(c.d_k, to, d_k[r], there);
            add_gradient(c.da, to, da[r], there);
            add_gradient(c.db, to, db[r], there);
            add_gradient(c.dg, to, dg[r], there);
        }
    }
}

} // namespace

template <class T> pn_status pn_dplr_cuda_gradient(const pn_dplr_cuda<T> *c) {
    const int64_t blocks = c->docs.chunks * c->heads;
    if (blocks == 0) return PN_OK;
    const int bytes = (int)sizeof(shared);
    PN_TRY(pn_dplr_cuda_share(chunk_gradient<T>, (size_t)bytes, name));
    chunk_gradient<T><<<(unsigned)blocks, THREADS, bytes, pn_cuda_stream()>>>(*c);
    return pn_cuda_launched(name);
}
template pn_status pn_dplr_cuda_gradient(const pn_dplr_cuda<float> *c);
template pn_status pn_dplr_cuda_gradient(const pn_dplr_cuda<pn_bf16> *c);
