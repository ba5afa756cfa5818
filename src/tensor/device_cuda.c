#include "device.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"
#include "device_refusal.h"

/* Copies between the GPU and ordinary memory go through pinned buffers in turn: the GPU works on some while the
 * processor fills or empties others. An upload waits for the one that had its buffer before, so there are more of them
 * than a step of training uploads small tables: the host can ask for a step while the GPU is at the one before. */
enum { STAGE_BYTES = 512 << 10, STAGES = 16, CONSTANT_BYTES = 64 << 10, BRANCHES = 8 };

typedef struct stage {
    void *data; /* pinned */
    cudaEvent_t done;
} stage;

typedef struct branch {
    cudaStream_t stream;
    cudaEvent_t done;
} branch;

static struct {
    bool open;
    int index;        /* which of the GPUs */
    int major, minor; /* compute capability; 0 until it is open */
    bool wait;        /* PN_CUDA_SYNC */
    bool graphs;      /* unless PN_CUDA_GRAPHS=0 */
    bool recording;
    const char *spoiled;     /* what was asked for that cannot be recorded; NULL: nothing */
    cudaStream_t stream, to; /* to: that of a branch, while one is recorded */
    branch branch[BRANCHES];
    cudaEvent_t fork;
    int n_branches; /* since the last join */
    cudaMemPool_t memory;
    int multiprocessors;
    size_t shared_most;
    stage stage[STAGES];
    int next;        /* stage to upload through */
    char *constants; /* pinned; one after another, each at a multiple of 16 bytes */
    size_t n_constants;
    const char *last; /* kernel launched */
    pn_cuda_bad *bad, *bad_of_gpu;
} device;

#define SAME(mine, cuda) _Static_assert((int)PN_CUDA_##mine == (int)cudaError##cuda, "device_refusal.h")
SAME(NO_MEMORY, MemoryAllocation);
SAME(OLD_DRIVER, InsufficientDriver);
SAME(NEWER_DRIVER, CallRequiresNewerDriver);
SAME(NO_DEVICE, NoDevice);
SAME(NO_CODE, NoKernelImageForDevice);
SAME(NEWER_PTX, UnsupportedPtxVersion);

pn_status pn_cuda_status(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return PN_OK;
    (void)cudaGetLastError(); /* an error that does not stick is told once */
    const pn_gpu_failure f = { .error = error,
                               .words = cudaGetErrorString(error),
                               .name = cudaGetErrorName(error),
                               .major = device.major,
                               .minor = device.minor,
                               .archs = POSTNAS_CUDA_ARCHITECTURES };
    return pn_gpu_failed(&f, what);
}

#define TRY_CUDA(call, what) PN_TRY(pn_cuda_status((call), (what)))

/* ---- opening ---- */

static pn_status find_gpus(int *n) {
    pn_gpu_search found = { .visible = getenv("CUDA_VISIBLE_DEVICES") };
    (void)cudaDriverGetVersion(&found.driver);
    (void)cudaRuntimeGetVersion(&found.runtime);
    const cudaError_t error = cudaGetDeviceCount(&found.n);
    if (error != cudaSuccess) (void)cudaGetLastError();
    found.error = error;
    found.words = cudaGetErrorString(error);
    PN_TRY(pn_gpu_search_check(&found));
    *n = found.n;
    return PN_OK;
}

/* PN_CUDA_SHARED: a GPU whose blocks may have fewer KB is played by this one. */
static size_t most_shared(size_t bytes) {
    const char *text = getenv("PN_CUDA_SHARED");
    const size_t kb = text ? strtoul(text, NULL, 10) : 0;
    return kb > 0 && kb << 10 < bytes ? kb << 10 : bytes;
}

static pn_status open_gpu(void) {
    struct cudaDeviceProp p;
    int n;
    PN_TRY(find_gpus(&n));
    TRY_CUDA(cudaSetDevice(device.index), "opening the GPU");
    TRY_CUDA(cudaGetDeviceProperties(&p, device.index), "asking the GPU what it is");
    PN_TRY(pn_gpu_architecture_check(p.name, p.major, p.minor));
    device.major = p.major;
    device.minor = p.minor;
    TRY_CUDA(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "making a CUDA stream");
    TRY_CUDA(cudaDeviceGetDefaultMemPool(&device.memory, device.index), "the GPU's memory pool");
    device.to = device.stream;
    uint64_t keep_all = UINT64_MAX; /* the pools above decide what goes back */
    TRY_CUDA(cudaMemPoolSetAttribute(device.memory, cudaMemPoolAttrReleaseThreshold, &keep_all),
             "the GPU's memory pool");
    for (int i = 0; i < STAGES; i++) {
        TRY_CUDA(cudaHostAlloc(&device.stage[i].data, STAGE_BYTES, cudaHostAllocDefault), "pinned memory");
        TRY_CUDA(cudaEventCreateWithFlags(&device.stage[i].done, cudaEventDisableTiming), "making a CUDA event");
    }
    TRY_CUDA(cudaHostAlloc((void **)&device.constants, CONSTANT_BYTES, cudaHostAllocDefault), "pinned memory");
    TRY_CUDA(cudaHostAlloc((void **)&device.bad, sizeof *device.bad, cudaHostAllocMapped), "pinned memory");
    memset(device.bad, 0, sizeof *device.bad);
    TRY_CUDA(cudaHostGetDevicePointer((void **)&device.bad_of_gpu, device.bad, 0), "pinned memory");
    device.multiprocessors = p.multiProcessorCount;
    device.shared_most = most_shared(p.sharedMemPerBlockOptin);
    const char *wait = getenv("PN_CUDA_SYNC"), *graphs = getenv("PN_CUDA_GRAPHS");
    device.wait = wait && strcmp(wait, "0");
    device.graphs = !(graphs && !strcmp(graphs, "0"));
    device.last = "no kernel";
    device.open = true;
    return PN_OK;
}

pn_status pn_device_count(int *n) {
    PN_TRY(find_gpus(n));
    return PN_OK;
}

pn_status pn_device_choose(int local, int n) {
    int there;
    PN_ASSERT(!device.open && local >= 0 && local < n);
    PN_TRY(pn_device_count(&there));
    PN_TRY(pn_gpu_ranks_check(n, there));
    device.index = there == 1 ? 0 : local;
    return PN_OK;
}

pn_status pn_device_open(void) {
    if (device.open) return PN_OK;
    PN_TRY(open_gpu());
    return PN_OK;
}

pn_status pn_device_describe(pn_device_info *out) {
    struct cudaDeviceProp p;
    PN_TRY(pn_device_open());
    TRY_CUDA(cudaGetDeviceProperties(&p, device.index), "asking the GPU what it is");
    *out = (pn_device_info){ .major = p.major, .minor = p.minor, .multiprocessors = p.multiProcessorCount };
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    int khz = 0;
    TRY_CUDA(cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, device.index), "asking the GPU for its clock");
    out->clock_mhz = khz / 1000;
    uint64_t held, used; /* what the pool keeps for what comes is free too */
    TRY_CUDA(cudaMemGetInfo(&out->free_bytes, &out->memory_bytes), "asking the GPU for its free memory");
    TRY_CUDA(cudaMemPoolGetAttribute(device.memory, cudaMemPoolAttrReservedMemCurrent, &held), "the GPU's memory pool");
    TRY_CUDA(cudaMemPoolGetAttribute(device.memory, cudaMemPoolAttrUsedMemCurrent, &used), "the GPU's memory pool");
    out->free_bytes += held - used;
    TRY_CUDA(cudaDriverGetVersion(&out->driver), "asking for the driver's version");
    TRY_CUDA(cudaRuntimeGetVersion(&out->runtime), "asking for CUDA's version");
    return PN_OK;
}

cudaStream_t pn_cuda_stream(void) {
    PN_ASSERT(device.open);
    return device.to;
}
int pn_cuda_multiprocessors(void) {
    return device.multiprocessors;
}
size_t pn_cuda_shared_most(void) {
    return device.shared_most;
}
pn_cuda_bad *pn_cuda_bad_slot(void) {
    return device.bad_of_gpu;
}

/* ---- launches and waiting ---- */

static pn_status failed_after(cudaError_t error) {
    char what[160];
    snprintf(what, sizeof what, "%.80s, or a kernel before it", device.last);
    return pn_cuda_status(error, device.wait ? device.last : what);
}

/* Of what a graph cannot do while it is recorded. what: a literal. */
static pn_status not_recording(const char *what) {
    if (!device.recording) return PN_OK;
    device.spoiled = what;
    PN_FAIL(PN_UNSUPPORTED, "%s cannot be recorded", what);
}

static pn_status finish(void) {
    PN_TRY(not_recording("waiting for the GPU"));
    cudaError_t error = cudaStreamSynchronize(device.stream);
    if (error != cudaSuccess) return failed_after(error);
    pn_cuda_bad bad = *device.bad;
    if (!bad.taken) return PN_OK;
    memset(device.bad, 0, sizeof *device.bad);
    PN_CHECK(!bad.weight, PN_USAGE, "%s: weight %g of row %lld is not a finite number >= 0", bad.what, bad.value,
             bad.at);
    PN_FAIL(PN_USAGE, "%s %.0f at position %lld is outside %lld .. %lld; was the text split by this model's tokenizer?",
            bad.what, bad.value, bad.at, bad.low, bad.end - 1);
}

pn_status pn_cuda_launched(const char *kernel) {
    PN_TRY(pn_cuda_status(cudaGetLastError(), kernel));
    device.last = kernel;
    return device.wait ? finish() : PN_OK;
}

pn_status pn_device_sync(void) {
    PN_TRY(pn_device_open());
    PN_TRY(finish());
    return PN_OK;
}

pn_status pn_cuda_driver(const char *name, int version, void *function, size_t n_bytes) {
    void *at = NULL;
    enum cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, &at, (unsigned)version, cudaEnableDefault, &result);
#else
    const cudaError_t error = cudaGetDriverEntryPoint(name, &at, cudaEnableDefault, &result);
    (void)version;
#endif
    PN_TRY(pn_cuda_status(error, "looking for a function of the driver"));
    PN_CHECK(result == cudaDriverEntryPointSuccess && at, PN_DEVICE, "the driver has no %s", name);
    PN_ASSERT(n_bytes == sizeof at);
    memcpy(function, &at, n_bytes);
    return PN_OK;
}

/* ---- memory ---- */

pn_status pn_cuda_give_back(void) {
    PN_TRY(finish());
    TRY_CUDA(cudaMemPoolTrimTo(device.memory, 0), "the GPU's memory pool");
    return PN_OK;
}

void *pn_device_alloc(size_t n_bytes) {
    PN_ASSERT(device.open);
    void *p = NULL;
    if (not_recording("taking memory")) return NULL;
    if (cudaMallocAsync(&p, n_bytes, device.stream) == cudaSuccess) return p;
    (void)cudaGetLastError();
    return NULL;
}

void pn_device_free(void *p) {
    PN_ASSERT(!device.recording);
    if (p) (void)cudaFreeAsync(p, device.stream); /* fails only where an earlier call failed and said so */
}

pn_status pn_device_upload(void *dst, const void *src, size_t n_bytes) {
    PN_TRY(not_recording("copying to the GPU"));
    for (size_t at = 0, n; at < n_bytes; at += n) {
        stage *s = &device.stage[device.next];
        device.next = (device.next + 1) % STAGES;
        n = n_bytes - at < STAGE_BYTES ? n_bytes - at : STAGE_BYTES;
        TRY_CUDA(cudaEventSynchronize(s->done), "copying to the GPU");
        memcpy(s->data, (const char *)src + at, n);
        TRY_CUDA(cudaMemcpyAsync((char *)dst + at, s->data, n, cudaMemcpyHostToDevice, device.stream),
                 "copying to the GPU");
        TRY_CUDA(cudaEventRecord(s->done, device.stream), "copying to the GPU");
    }
    return PN_OK;
}

pn_status pn_device_upload_constant(void *dst, const void *src, size_t n_bytes) {
    size_t at = 0;
    if (!device.recording) return pn_device_upload(dst, src, n_bytes);
    while (at < device.n_constants &&
           (n_bytes > device.n_constants - at || memcmp(device.constants + at, src, n_bytes)))
        at += 16;
    if (at >= device.n_constants) {
        at = device.n_constants;
        PN_CHECK(n_bytes <= CONSTANT_BYTES - at, PN_UNSUPPORTED, "more than %d bytes of constants for the GPU",
                 (int)CONSTANT_BYTES);
        memcpy(device.constants + at, src, n_bytes);
        device.n_constants += (n_bytes + 15) / 16 * 16;
    }
    TRY_CUDA(cudaMemcpyAsync(dst, device.constants + at, n_bytes, cudaMemcpyHostToDevice, device.to),
             "copying to the GPU");
    return PN_OK;
}

pn_status pn_device_download(void *dst, const void *src, size_t n_bytes) {
    size_t asked = 0, got = 0;
    PN_TRY(not_recording("copying from the GPU"));
    for (int in = 0, out = 0; got < n_bytes; out = (out + 1) % STAGES) {
        for (; asked < n_bytes && asked - got < (size_t)STAGES * STAGE_BYTES; in = (in + 1) % STAGES) {
            size_t n = n_bytes - asked < STAGE_BYTES ? n_bytes - asked : STAGE_BYTES;
            TRY_CUDA(cudaMemcpyAsync(device.stage[in].data, (const char *)src + asked, n, cudaMemcpyDeviceToHost,
                                     device.stream),
                     "copying from the GPU");
            TRY_CUDA(cudaEventRecord(device.stage[in].done, device.stream), "copying from the GPU");
            asked += n;
        }
        cudaError_t error = cudaEventSynchronize(device.stage[out].done);
        if (error != cudaSuccess) return failed_after(error);
        size_t n = n_bytes - got < STAGE_BYTES ? n_bytes - got : STAGE_BYTES;
        memcpy((char *)dst + got, device.stage[out].data, n);
        got += n;
    }
    PN_TRY(finish());
    return PN_OK;
}

pn_status pn_device_pin(size_t n_bytes, void **out) {
    PN_TRY(pn_device_open());
    TRY_CUDA(cudaHostAlloc(out, n_bytes, cudaHostAllocDefault), "pinned memory");
    return PN_OK;
}

void pn_device_unpin(void *pinned) {
    if (!pinned) return;
    (void)cudaStreamSynchronize(device.stream); /* what failed is told where somebody looks */
    (void)cudaFreeHost(pinned);
}

pn_status pn_device_send(void *pinned, const void *src, size_t n_bytes) {
    PN_TRY(not_recording("copying from the GPU"));
    TRY_CUDA(cudaMemcpyAsync(pinned, src, n_bytes, cudaMemcpyDeviceToHost, device.stream), "copying from the GPU");
    return PN_OK;
}

pn_status pn_device_copy(void *dst, const void *src, size_t n_bytes) {
    if (n_bytes)
        TRY_CUDA(cudaMemcpyAsync(dst, src, n_bytes, cudaMemcpyDeviceToDevice, device.to), "copying on the GPU");
    return PN_OK;
}

pn_status pn_device_fill(void *dst, int byte, size_t n_bytes) {
    if (n_bytes) TRY_CUDA(cudaMemsetAsync(dst, byte, n_bytes, device.to), "filling memory of the GPU");
    return PN_OK;
}

/* ---- graphs ---- */

struct pn_graph {
    cudaGraphExec_t exec;
};

bool pn_graphs_wanted(void) {
    return device.open && device.graphs && !device.wait;
}
bool pn_graph_recording(void) {
    return device.recording;
}

static pn_status make_branches(void) {
    if (device.fork) return PN_OK;
    for (int i = 0; i < BRANCHES; i++) {
        TRY_CUDA(cudaStreamCreateWithFlags(&device.branch[i].stream, cudaStreamNonBlocking), "making a CUDA stream");
        TRY_CUDA(cudaEventCreateWithFlags(&device.branch[i].done, cudaEventDisableTiming), "making a CUDA event");
    }
    TRY_CUDA(cudaEventCreateWithFlags(&device.fork, cudaEventDisableTiming), "making a CUDA event");
    return PN_OK;
}

pn_status pn_graph_begin(void) {
    PN_ASSERT(device.open && !device.recording);
    PN_TRY(make_branches());
    TRY_CUDA(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "recording a CUDA graph");
    device.recording = true;
    device.spoiled = NULL;
    return PN_OK;
}

pn_status pn_graph_branch(void) {
    if (!device.recording) return PN_OK;
    const int i = device.n_branches++;
    const branch *b = &device.branch[i % BRANCHES];
    if (i == 0) TRY_CUDA(cudaEventRecord(device.fork, device.stream), "recording a branch");
    if (i < BRANCHES) TRY_CUDA(cudaStreamWaitEvent(b->stream, device.fork, 0), "recording a branch");
    device.to = b->stream;
    return PN_OK;
}

pn_status pn_graph_join(void) {
    const int n = device.n_branches < BRANCHES ? device.n_branches : BRANCHES;
    device.n_branches = 0;
    device.to = device.stream;
    for (int i = 0; i < n; i++) {
        TRY_CUDA(cudaEventRecord(device.branch[i].done, device.branch[i].stream), "joining branches");
        TRY_CUDA(cudaStreamWaitEvent(device.stream, device.branch[i].done, 0), "joining branches");
    }
    return PN_OK;
}

static pn_status make_graph(cudaGraph_t recorded, pn_graph **out) {
    PN_CHECK(!device.spoiled, PN_UNSUPPORTED, "a CUDA graph: %s cannot be recorded", device.spoiled);
    pn_graph *g = calloc(1, sizeof *g);
    PN_CHECK(g, PN_MEMORY, "out of memory");
    pn_status s = pn_cuda_status(cudaGraphInstantiate(&g->exec, recorded, 0), "making a CUDA graph");
    if (s)
        free(g);
    else
        *out = g;
    return s;
}

pn_status pn_graph_end(pn_graph **out) {
    PN_ASSERT(device.recording);
    cudaGraph_t recorded = NULL;
    device.recording = false;
    device.n_branches = 0; /* of work that failed: the recording fails too */
    device.to = device.stream;
    cudaError_t error = cudaStreamEndCapture(device.stream, &recorded);
    pn_status s = PN_OK;
    if (out) {
        s = pn_cuda_status(error, "recording a CUDA graph");
        if (!s) s = make_graph(recorded, out);
    } else {
        (void)cudaGetLastError(); /* of a recording that failed before */
    }
    if (recorded) (void)cudaGraphDestroy(recorded);
    return s;
}

pn_status pn_graph_launch(const pn_graph *g) {
    TRY_CUDA(cudaGraphLaunch(g->exec, device.stream), "launching a CUDA graph");
    device.last = "a CUDA graph";
    return PN_OK;
}

void pn_graph_destroy(pn_graph **g) {
    if (!g || !*g) return;
    (void)cudaGraphExecDestroy((*g)->exec);
    free(*g);
    *g = NULL;
}

/* ---- events ---- */

struct pn_event {
    cudaEvent_t event;
};

pn_status pn_event_create(pn_event **out) {
    PN_TRY(pn_device_open());
    pn_event *e = calloc(1, sizeof *e);
    PN_CHECK(e, PN_MEMORY, "out of memory");
    pn_status s = pn_cuda_status(cudaEventCreate(&e->event), "making a CUDA event");
    if (s) {
        free(e);
        return s;
    }
    *out = e;
    return PN_OK;
}

void pn_event_destroy(pn_event **e) {
    if (!e || !*e) return;
    (void)cudaEventDestroy((*e)->event);
    free(*e);
    *e = NULL;
}

pn_status pn_event_record(pn_event *e) {
    TRY_CUDA(cudaEventRecord(e->event, device.stream), "recording a CUDA event");
    return PN_OK;
}

pn_status pn_event_wait(pn_event *e) {
    cudaError_t error = cudaEventSynchronize(e->event);
    if (error != cudaSuccess) return failed_after(error);
    /* What met bad input may still be writing what it saw. */
    return *(volatile int *)&device.bad->taken ? finish() : PN_OK;
}

pn_status pn_event_seconds(pn_event *begin, pn_event *end, double *seconds) {
    float ms;
    TRY_CUDA(cudaEventSynchronize(end->event), "waiting for a CUDA event");
    TRY_CUDA(cudaEventElapsedTime(&ms, begin->event, end->event), "timing with CUDA events");
    *seconds = (double)ms * 1e-3;
    return PN_OK;
}
