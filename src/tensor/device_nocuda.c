/* device.h where the build has no CUDA: the GPU cannot be opened, so the rest is never called. */
#include "device.h"
#include "span.h"

pn_status pn_device_open(void) {
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA backend: install nvcc (CUDA 12 or newer) and configure "
                            "again, or use the CPU (--device cpu)");
}

pn_status pn_device_count(int *n) {
    (void)n;
    return pn_device_open();
}

pn_status pn_device_choose(int local, int n) {
    (void)local, (void)n;
    return pn_device_open();
}

pn_status pn_device_describe(pn_device_info *out) {
    (void)out;
    return pn_device_open();
}

void *pn_device_alloc(size_t n_bytes) {
    (void)n_bytes;
    PN_ASSERT(!"a GPU");
}
void pn_device_free(void *p) {
    PN_ASSERT(!p);
}
pn_status pn_device_upload(void *dst, const void *src, size_t n_bytes) {
    (void)dst, (void)src, (void)n_bytes;
    return pn_device_open();
}
pn_status pn_device_upload_constant(void *dst, const void *src, size_t n_bytes) {
    (void)dst, (void)src, (void)n_bytes;
    return pn_device_open();
}
pn_status pn_device_download(void *dst, const void *src, size_t n_bytes) {
    (void)dst, (void)src, (void)n_bytes;
    return pn_device_open();
}
pn_status pn_device_pin(size_t n_bytes, void **out) {
    (void)n_bytes, (void)out;
    return pn_device_open();
}
void pn_device_unpin(void *pinned) {
    PN_ASSERT(!pinned);
}
pn_status pn_device_send(void *pinned, const void *src, size_t n_bytes) {
    (void)pinned, (void)src, (void)n_bytes;
    return pn_device_open();
}
pn_status pn_device_copy(void *dst, const void *src, size_t n_bytes) {
    (void)dst, (void)src, (void)n_bytes;
    return pn_device_open();
}
pn_status pn_device_fill(void *dst, int byte, size_t n_bytes) {
    (void)dst, (void)byte, (void)n_bytes;
    return pn_device_open();
}
pn_status pn_device_sync(void) {
    return pn_device_open();
}

bool pn_graphs_wanted(void) {
    return false;
}
bool pn_graph_recording(void) {
    return false;
}
pn_status pn_graph_begin(void) {
    return pn_device_open();
}
pn_status pn_graph_end(pn_graph **out) {
    (void)out;
    return pn_device_open();
}
pn_status pn_graph_branch(void) {
    return pn_device_open();
}
pn_status pn_graph_join(void) {
    return pn_device_open();
}
pn_status pn_graph_launch(const pn_graph *g) {
    (void)g;
    return pn_device_open();
}
void pn_graph_destroy(pn_graph **g) {
    PN_ASSERT(!g || !*g);
}

pn_status pn_event_create(pn_event **out) {
    (void)out;
    return pn_device_open();
}
void pn_event_destroy(pn_event **e) {
    PN_ASSERT(!e || !*e);
}
pn_status pn_event_record(pn_event *e) {
    (void)e;
    return pn_device_open();
}
pn_status pn_event_wait(pn_event *e) {
    (void)e;
    return pn_device_open();
}
pn_status pn_event_seconds(pn_event *begin, pn_event *end, double *seconds) {
    (void)begin, (void)end, (void)seconds;
    return pn_device_open();
}

pn_status pn_span_create(pn_span **out) {
    (void)out;
    return pn_device_open();
}
void pn_span_destroy(pn_span **s) {
    PN_ASSERT(!*s);
}
void *pn_span_address(const pn_span *s) {
    (void)s;
    PN_ASSERT(!"a GPU");
}
pn_status pn_span_resize(pn_span *s, size_t n_bytes) {
    (void)s, (void)n_bytes;
    return pn_device_open();
}
