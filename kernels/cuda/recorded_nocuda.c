/* recorded.h where the build has no CUDA: pn_graphs_wanted says no, so none of it is called. */
#include "recorded.h"

pn_status pn_recorded_create(pn_recorded **out) {
    (void)out;
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA");
}
void pn_recorded_destroy(pn_recorded **r) {
    PN_ASSERT(!r || !*r);
}
pn_status pn_recorded_name(pn_recorded *r, const int64_t *at, int64_t n, bool fixed) {
    (void)r, (void)at, (void)n, (void)fixed;
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA");
}
void pn_recorded_forget(pn_recorded *r) {
    (void)r;
}
void pn_recorded_learn(pn_recorded *r) {
    (void)r;
}
pn_status pn_recorded_settle(pn_recorded *r) {
    (void)r;
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA");
}
void pn_recorded_use(pn_recorded *r) {
    (void)r;
}
bool pn_recorded_stale(const pn_recorded *r) {
    (void)r;
    return true;
}
pn_status pn_recorded_refresh(pn_recorded *r) {
    (void)r;
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA");
}
