#include "weights_internal.h"

#include <stdlib.h>
#include <string.h>

static int in_name_order(const void *a, const void *b) {
    return strcmp(((const pn_weights_entry *)a)->info.name, ((const pn_weights_entry *)b)->info.name);
}

void pn_weights_sort(pn_weights *w) {
    qsort(w->entry, (size_t)w->count, sizeof *w->entry, in_name_order);
}

pn_status pn_weights_rename(pn_weights *w, void (*name)(const char *stored, pn_buf *out)) {
    PN_ASSERT(!w->renamed);
    PN_CHECK(w->renamed = calloc((size_t)w->count + 1, sizeof *w->renamed), PN_MEMORY, "out of memory");
    for (int64_t i = 0; i < w->count; i++) {
        pn_buf text = { 0 };
        name(w->entry[i].info.name, &text);
        pn_status s = pn_buf_status(&text);
        w->renamed[i] = text.data;
        PN_TRY(s);
        w->entry[i].info.name = text.data ? text.data : "";
    }
    pn_weights_sort(w);
    for (int64_t i = 1; i < w->count; i++)
        PN_CHECK(strcmp(w->entry[i - 1].info.name, w->entry[i].info.name) != 0, PN_FORMAT,
                 "%s: tensors %.200s and %.200s are two names of one weight", w->path, w->entry[i - 1].stored->name,
                 w->entry[i].stored->name);
    return PN_OK;
}

void pn_weights_close(pn_weights **w) {
    if (!w || !*w) return;
    for (int64_t i = 0; (*w)->renamed && i < (*w)->count; i++) free((*w)->renamed[i]);
    free((*w)->renamed);
    free((*w)->entry);
    if ((*w)->source) (*w)->close_source((*w)->source);
    free((*w)->path);
    free(*w);
    *w = NULL;
}

int64_t pn_weights_count(const pn_weights *w) {
    return w->count;
}

const pn_tensor_info *pn_weights_info(const pn_weights *w, int64_t i) {
    PN_ASSERT(0 <= i && i < w->count);
    return &w->entry[i].info;
}

static int name_against(const void *name, const void *e) {
    return strcmp(name, ((const pn_weights_entry *)e)->info.name);
}

static const pn_weights_entry *find(const pn_weights *w, const char *name) {
    return bsearch(name, w->entry, (size_t)w->count, sizeof *w->entry, name_against);
}

const pn_tensor_info *pn_weights_find(const pn_weights *w, const char *name) {
    const pn_weights_entry *e = find(w, name);
    return e ? &e->info : NULL;
}

const char *pn_weights_path(const pn_weights *w) {
    return w->path;
}

pn_status pn_weights_read(const pn_weights *w, const char *name, pn_tensor *dst) {
    const pn_weights_entry *e = find(w, name);
    PN_CHECK(e, PN_FORMAT, "%s: there is no tensor %.200s in it", w->path, name);
    return e->read(e, dst);
}
