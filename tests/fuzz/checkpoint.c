/* manifest.json of run state: what is accepted tiles every array with ranges of its own files, and is the same when it
 * is written and read again. */
#include "checkpoint_internal.h"
#include "fuzz.h"

static void check_array(const pn_state_manifest *m, const pn_state_array *a) {
    int64_t end = 0;
    FUZZ_ASSERT(*a->name && *a->name != '/' && strcmp(a->name, "..") && !strstr(a->name, "/../"));
    FUZZ_ASSERT(pn_state_find(m, a->name) == a);
    for (int64_t k = 0; k < a->n_ranges; k++) {
        const pn_state_range *r = &a->range[k];
        FUZZ_ASSERT(r->offset == end && r->n > 0 && r->file >= 0 && r->file < m->n_files);
        FUZZ_ASSERT(r->n * (int64_t)pn_dtype_bytes(a->dtype) <= m->file[r->file].n_bytes);
        FUZZ_ASSERT(r->at >= 0 && r->at <= r->offset); /* others may be between, in other files */
        end += r->n;
    }
    FUZZ_ASSERT(end == a->n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_state_manifest m, again;
    pn_status s = pn_state_parse("manifest.json", (const char *)data, n_bytes, &m);
    if (!s) s = pn_state_complete(&m, "manifest.json");
    if (s) {
        pn_state_free(&m);
        return fuzz_refused(s);
    }
    for (int64_t i = 0; i < m.n_arrays; i++) check_array(&m, &m.array[i]);
    char *text;
    FUZZ_ASSERT(!pn_state_text(&m, &text));
    FUZZ_ASSERT(!pn_state_parse("manifest.json", text, strlen(text), &again));
    FUZZ_ASSERT(!pn_state_complete(&again, "manifest.json"));
    FUZZ_ASSERT(again.step == m.step && again.n_files == m.n_files && again.n_arrays == m.n_arrays);
    for (int64_t i = 0; i < m.n_arrays; i++) FUZZ_ASSERT(again.array[i].n_ranges == m.array[i].n_ranges);
    pn_state_free(&again);
    pn_state_free(&m);
    free(text);
    return 0;
}
