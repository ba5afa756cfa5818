/* Collectives over the memory of GPUs: NCCL, on a stream of its own.
 *
 * Every collective begins when the stream that computes has come to the point where it was asked for, and a wait makes
 * that stream wait for its end: the host waits for neither. The communicator is non-blocking, so no call of NCCL's
 * waits for another rank, and what is under way can be ended: when the control channel hears of a failure its thread
 * aborts the communicator, kernels that wait for the lost rank end, the streams run empty, and whoever waits for them
 * goes on and is told which rank failed.
 *
 * The library is loaded when first used. Nothing newer than NCCL 2.28 is used, nor anything that 2.18 lacks. */
#include "comm.h"

#ifdef POSTNAS_HAVE_NCCL

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nccl.h>

#include "clock.h"
#include "device.h"
#include "device_cuda.h"

#define LIBRARY "libnccl.so.2"

#define NCCL_MAP(X)                                                                                                    \
    X(GetVersion)                                                                                                      \
    X(GetUniqueId)                                                                                                     \
    X(CommInitRankConfig)                                                                                              \
    X(CommGetAsyncError)                                                                                               \
    X(CommAbort)                                                                                                       \
    X(CommFinalize)                                                                                                    \
    X(CommDestroy)                                                                                                     \
    X(GetErrorString)                                                                                                  \
    X(GetLastError)                                                                                                    \
    X(AllReduce)                                                                                                       \
    X(ReduceScatter)                                                                                                   \
    X(AllGather)                                                                                                       \
    X(Broadcast)

static struct {
    bool open;
#define X(function) __typeof__(&nccl##function) function;
    NCCL_MAP(X)
#undef X
} lib;

/* Collectives that can be told apart by a wait; one that is older is waited for with a later one. */
enum { EVENTS = 64, LEAST_VERSION = 21800, SPINS = 500, LOCK_SECONDS = 2 };

typedef struct nccl {
    pn_control *control;
    pthread_mutex_t lock; /* of comm: nobody calls NCCL with it while it is aborted */
    ncclComm_t comm;      /* NULL: not there, or aborted */
    cudaStream_t stream;
    cudaEvent_t before, done[EVENTS];
    void *nothing; /* for barriers: a number of the GPU's */
} nccl;

/* ---- the library ---- */

static pn_status find(void *handle, const char *name, void *function) {
    void *at = dlsym(handle, name);
    PN_CHECK(at, PN_UNSUPPORTED, "%s has no %s: it is too old; NCCL 2.18 is the oldest that serves", LIBRARY, name);
    memcpy(function, &at, sizeof at);
    return PN_OK;
}

static pn_status load(void) {
    int version = 0;
    if (lib.open) return PN_OK;
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    PN_CHECK(handle, PN_UNSUPPORTED,
             "%s, which connects GPUs, cannot be loaded: %s; install NCCL or name its folder in LD_LIBRARY_PATH",
             LIBRARY, dlerror());
#define X(function) PN_TRY(find(handle, "nccl" #function, &lib.function));
    NCCL_MAP(X)
#undef X
    PN_CHECK(lib.GetVersion(&version) == ncclSuccess && version >= LEAST_VERSION, PN_UNSUPPORTED,
             "NCCL %d.%d is too old; 2.18 is the oldest that serves", version / 10000, version / 100 % 100);
    lib.open = true;
    return PN_OK;
}

/* ---- waiting ---- */

/* Often at first, then less and less: the processor is others' as well. */
static void rest(int turn) {
    if (turn < SPINS)
        sched_yield();
    else
        nanosleep(&(struct timespec){ .tv_nsec = turn < 2 * SPINS ? 20000 : 200000 }, NULL);
}

/* NCCL says that something went wrong. Which rank is to blame the control channel mostly knows, a moment later. */
static pn_status failed(nccl *n, ncclResult_t r, const char *what) {
    char text[512], last[300] = "";
    pthread_mutex_lock(&n->lock);
    if (n->comm) snprintf(last, sizeof last, "%.290s", lib.GetLastError(n->comm));
    pthread_mutex_unlock(&n->lock);
    snprintf(text, sizeof text, "NCCL: %s: %s%s%s", what, lib.GetErrorString(r), last[0] ? "; " : "", last);
    const double deadline = pn_seconds() + pn_control_limit(n->control) / 4;
    while ((r == ncclRemoteError || r == ncclSystemError) && !pn_control_failed(n->control) && pn_seconds() < deadline)
        rest(SPINS);
    pn_control_abort(n->control, text);
    PN_TRY(pn_control_status(n->control));
    PN_FAIL(PN_COMM, "%s", text);
}

/* How it stands with what NCCL was asked for last. */
static pn_status look(nccl *n, ncclResult_t *r) {
    PN_TRY(pn_control_status(n->control));
    pthread_mutex_lock(&n->lock);
    const ncclResult_t asked = n->comm ? lib.CommGetAsyncError(n->comm, r) : ncclSuccess;
    const bool gone = !n->comm;
    pthread_mutex_unlock(&n->lock);
    if (gone) PN_TRY(pn_control_status(n->control));
    if (asked != ncclSuccess) *r = asked;
    return PN_OK;
}

static pn_status keep_looking(nccl *n, ncclResult_t *r) {
    for (int turn = 0; *r == ncclInProgress; turn++) {
        rest(turn);
        PN_TRY(look(n, r));
    }
    return PN_OK;
}

/* What NCCL answers when it is done with that. A first collective connects, which is waiting for other ranks; where
 * one look is enough nothing was waited for, and no progress is to be told of. */
static pn_status settled(nccl *n, ncclResult_t r, const char *what) {
    if (r == ncclInProgress) PN_TRY(look(n, &r));
    if (r == ncclInProgress) {
        pn_control_waiting(n->control, true);
        const pn_status s = keep_looking(n, &r);
        pn_control_waiting(n->control, false);
        PN_TRY(s);
    }
    return r == ncclSuccess ? PN_OK : failed(n, r, what);
}

/* By the control channel's thread. Where the main thread is inside NCCL and does not come back, the channel's last
 * resort ends the process: to free what is in use would end it as well, without saying why. */
static void abort_comm(void *ctx) {
    nccl *n = ctx;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += LOCK_SECONDS;
    if (pthread_mutex_timedlock(&n->lock, &t)) return;
    if (n->comm) (void)lib.CommAbort(n->comm);
    n->comm = NULL;
    pthread_mutex_unlock(&n->lock);
}

/* ---- collectives ---- */

static ncclDataType_t type_of(pn_dtype t) {
    switch (t) {
    case PN_F32: return ncclFloat32;
    case PN_F64: return ncclFloat64;
    case PN_BF16: return ncclBfloat16;
    case PN_F16: return ncclFloat16;
    case PN_I32: return ncclInt32;
    case PN_I64: return ncclInt64;
    case PN_U8: return ncclUint8;
    case PN_DTYPES: break;
    }
    PN_ASSERT(!"a dtype");
}

static ncclResult_t ask(nccl *n, const pn_collective *w) {
    const ncclRedOp_t op = w->reduce == PN_MAX ? ncclMax : ncclSum;
    const size_t count = (size_t)w->count;
    switch (w->kind) {
    case PN_ALL_REDUCE: return lib.AllReduce(w->dst, w->dst, count, type_of(w->dtype), op, n->comm, n->stream);
    case PN_REDUCE_SCATTER: return lib.ReduceScatter(w->src, w->dst, count, type_of(w->dtype), op, n->comm, n->stream);
    case PN_ALL_GATHER: return lib.AllGather(w->src, w->dst, count, type_of(w->dtype), n->comm, n->stream);
    case PN_BROADCAST: return lib.Broadcast(w->dst, w->dst, count, type_of(w->dtype), w->root, n->comm, n->stream);
    case PN_BARRIER: return lib.AllReduce(n->nothing, n->nothing, 1, ncclInt32, ncclSum, n->comm, n->stream);
    }
    PN_ASSERT(!"a collective");
}

static cudaEvent_t event_of(nccl *n, pn_ticket t) {
    return n->done[t % EVENTS];
}

static pn_status nccl_start(pn_comm *c, const pn_collective *what) {
    nccl *n = c->data;
    PN_ASSERT(!pn_graph_recording());
    PN_TRY(pn_cuda_status(cudaEventRecord(n->before, pn_cuda_stream()), "a collective"));
    PN_TRY(pn_cuda_status(cudaStreamWaitEvent(n->stream, n->before, 0), "a collective"));
    pthread_mutex_lock(&n->lock);
    const bool gone = !n->comm;
    const ncclResult_t r = gone ? ncclSuccess : ask(n, what);
    pthread_mutex_unlock(&n->lock);
    if (gone) PN_TRY(pn_control_status(c->control));
    PN_TRY(settled(n, r, "a collective")); /* only then is it on the stream */
    PN_TRY(pn_cuda_status(cudaEventRecord(event_of(n, c->last + 1), n->stream), "a collective"));
    return PN_OK;
}

static pn_status nccl_wait(pn_comm *c, pn_ticket t) {
    nccl *n = c->data;
    return pn_cuda_status(cudaStreamWaitEvent(pn_cuda_stream(), event_of(n, t), 0), "waiting for a collective");
}

/* The stream of collectives waits for the other one before each of them, so its end is the end of all. */
static pn_status come_to_end(nccl *n, pn_ticket last) {
    for (int turn = 0;; turn++) {
        const cudaError_t e = cudaEventQuery(event_of(n, last));
        if (e == cudaSuccess) return PN_OK;
        if (e != cudaErrorNotReady) return pn_cuda_status(e, "a collective, or a kernel before it");
        PN_TRY(pn_control_status(n->control));
        if (turn % 64 == 63) PN_TRY(settled(n, ncclInProgress, "a collective")); /* errors of the network */
        rest(turn);
    }
}

static pn_status nccl_finish(pn_comm *c) {
    nccl *n = c->data;
    if (!c->last) return PN_OK;
    pn_control_waiting(c->control, true);
    const pn_status s = come_to_end(n, c->last);
    pn_control_waiting(c->control, false);
    return s;
}

/* ---- the communicator ---- */

static pn_status connect_gpus(nccl *n) {
    ncclUniqueId id;
    ncclResult_t r = ncclSuccess;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    memset(&id, 0, sizeof id);
    pn_status s = load();
    if (!s && pn_control_rank(n->control) == 0) r = lib.GetUniqueId(&id);
    if (r) s = pn_fail_at(__FILE__, __LINE__, PN_COMM, "NCCL cannot start: %s", lib.GetErrorString(r));
    PN_TRY(pn_control_agree(n->control, "NCCL", s));
    PN_TRY(pn_control_broadcast(n->control, "NCCL id", 0, &id, sizeof id));
    pn_control_on_failure(n->control, abort_comm, n);
    pthread_mutex_lock(&n->lock);
    r = lib.CommInitRankConfig(&n->comm, pn_control_size(n->control), id, pn_control_rank(n->control), &config);
    pthread_mutex_unlock(&n->lock);
    PN_TRY(settled(n, r, "connecting the GPUs (each rank needs one of its own)"));
    return PN_OK;
}

static pn_status make_streams(nccl *n) {
    int least, greatest;
    PN_TRY(pn_cuda_status(cudaDeviceGetStreamPriorityRange(&least, &greatest), "making a CUDA stream"));
    PN_TRY(pn_cuda_status(cudaStreamCreateWithPriority(&n->stream, cudaStreamNonBlocking, greatest),
                          "making a CUDA stream"));
    PN_TRY(pn_cuda_status(cudaEventCreateWithFlags(&n->before, cudaEventDisableTiming), "making a CUDA event"));
    for (int i = 0; i < EVENTS; i++)
        PN_TRY(pn_cuda_status(cudaEventCreateWithFlags(&n->done[i], cudaEventDisableTiming), "making a CUDA event"));
    n->nothing = pn_device_alloc(sizeof(int32_t));
    PN_CHECK(n->nothing, PN_MEMORY, "the GPU's memory is exhausted");
    PN_TRY(pn_device_fill(n->nothing, 0, sizeof(int32_t)));
    return PN_OK;
}

/* Orderly where no rank has failed: what was started is finished first, on all ranks. */
static void disconnect(nccl *n) {
    bool whole = false;
    if (!pn_control_failed(n->control)) {
        pthread_mutex_lock(&n->lock);
        const ncclResult_t r = n->comm ? lib.CommFinalize(n->comm) : ncclSuccess;
        pthread_mutex_unlock(&n->lock);
        whole = !settled(n, r, "closing the communicator");
    }
    pn_control_on_failure(n->control, NULL, NULL); /* from here on nobody else has it */
    if (n->comm) (void)(whole ? lib.CommDestroy(n->comm) : lib.CommAbort(n->comm));
    n->comm = NULL;
}

/* Not orderly: this rank has failed, and cannot wait for others. */
static void drop(nccl *n) {
    pthread_mutex_lock(&n->lock);
    if (n->comm) (void)lib.CommAbort(n->comm);
    n->comm = NULL;
    pthread_mutex_unlock(&n->lock);
}

static void free_nccl(nccl *n) {
    disconnect(n);
    pn_device_free(n->nothing);
    for (int i = 0; i < EVENTS; i++)
        if (n->done[i]) (void)cudaEventDestroy(n->done[i]);
    if (n->before) (void)cudaEventDestroy(n->before);
    if (n->stream) (void)cudaStreamDestroy(n->stream);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

/* NCCL's kernels end when the communicator is aborted, and its stream runs empty. */
static void nccl_abandon(pn_comm *c) {
    nccl *n = c->data;
    drop(n);
    (void)cudaStreamSynchronize(n->stream);
}

static void nccl_destroy(pn_comm *c) {
    free_nccl(c->data);
}

static const pn_comm_type type = {
    .name = "nccl",
    .start = nccl_start,
    .wait = nccl_wait,
    .finish = nccl_finish,
    .abandon = nccl_abandon,
    .destroy = nccl_destroy,
};

pn_status pn_comm_nccl(pn_control *control, pn_comm **out) {
    *out = NULL;
    nccl *n = calloc(1, sizeof *n);
    PN_CHECK(n, PN_MEMORY, "out of memory");
    n->control = control;
    pthread_mutex_init(&n->lock, NULL);
    pn_status s = connect_gpus(n);
    if (!s) s = pn_control_agree(control, "streams of NCCL", make_streams(n));
    if (!s) s = pn_comm_create(&type, PN_POOL_DEVICE, control, n, out);
    if (!s) return PN_OK;
    drop(n); /* an orderly end would wait for the others */
    free_nccl(n);
    return s;
}

#else

pn_status pn_comm_nccl(pn_control *control, pn_comm **out) {
    (void)control, (void)out;
    PN_FAIL(PN_UNSUPPORTED,
            "this build of postnas has no NCCL: install nccl.h (libnccl-dev) and configure again, or use "
            "one GPU");
}

#endif
