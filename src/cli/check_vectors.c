#include "check_vectors.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "golden.h"

typedef struct name_list {
    char **item; /* owned */
    size_t n, cap;
} name_list;

static void names_free(name_list *l) {
    for (size_t i = 0; i < l->n; i++) free(l->item[i]);
    free(l->item);
}

static pn_status names_add(name_list *l, const char *path) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **grown = realloc(l->item, cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        l->item = grown;
        l->cap = cap;
    }
    PN_CHECK(l->item[l->n] = strdup(path), PN_MEMORY, "out of memory");
    l->n++;
    return PN_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The .safetensors files directly in a folder, by name. */
static pn_status list_folder(const char *folder, name_list *out) {
    static const char ending[] = ".safetensors";
    DIR *d = opendir(folder);
    PN_CHECK(d, PN_IO, "%s: cannot be listed: %m", folder);
    pn_status s = PN_OK;
    for (struct dirent *e; !s && (e = readdir(d));) {
        size_t len = strlen(e->d_name), end = sizeof ending - 1;
        if (len <= end || strcmp(e->d_name + len - end, ending)) continue;
        char path[PN_PATH_MAX];
        s = pn_path_join(path, folder, e->d_name);
        if (!s && !pn_is_directory(path)) s = names_add(out, path);
    }
    closedir(d);
    PN_TRY(s);
    PN_CHECK(out->n, PN_USAGE, "%s: no .safetensors files in this folder (its own folders are not searched)", folder);
    qsort(out->item, out->n, sizeof *out->item, by_name);
    return PN_OK;
}

static pn_status dispatch(const pn_safetensors *f, const char *kind, const pn_compute *on, pn_report *report,
                          bool *built_in) {
    *built_in = false;
    if (pn_safetensors_metadata(f, "layer_cfgs")) {
        PN_TRY(pn_check_hybrid_file(f, on, report, built_in));
        return PN_OK;
    }
    if (!kind) return PN_OK;
    /* A core and a block may share a kind's name (deltanet and delta do not, but nothing forbids it): only a block
     * file has documents. */
    if (pn_safetensors_find(f, "cu_seqlens"))
        PN_TRY(pn_check_block_file(f, on, report, built_in));
    else
        PN_TRY(pn_check_core_file(f, kind, on, report, built_in));
    return PN_OK;
}

static pn_status check_file(const char *path, bool named, const pn_compute *on, pn_report *report) {
    pn_safetensors *f;
    PN_TRY(pn_safetensors_open(path, &f));
    const pn_golden_settings settings = { .file = f };
    const char *kind = pn_golden_kind(&settings), *name = pn_golden_name(f);
    bool built_in;
    pn_status s = dispatch(f, kind, on, report, &built_in);
    if (s == PN_USAGE || s == PN_UNSUPPORTED ||
        s == PN_NUMERIC) { /* this file's settings; the others are still asked */
        pn_row r = pn_row_start(name, kind ? kind : "model");
        pn_row_fail(&r, "%s", pn_error_message());
        pn_row_end(report, &r);
        s = PN_OK;
    } else if (!s && !built_in) {
        char why[128];
        if (kind)
            snprintf(why, sizeof why, "kind %.60s is not built in", kind);
        else if (pn_safetensors_metadata(f, "layer_cfgs"))
            snprintf(why, sizeof why, "a layer's kind is not built in");
        else
            snprintf(why, sizeof why, "no golden file: its metadata names no kind");
        pn_row r = pn_row_start(name, kind ? kind : "model");
        pn_row_fail(&r, "%s", why);
        if (named)
            pn_row_end(report, &r);
        else
            pn_row_skip(report, name, why);
    }
    pn_safetensors_close(&f);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_check_vectors(char *const *paths, int n_paths, const pn_compute *on, FILE *out) {
    pn_report report = { .out = out };
    for (int i = 0; i < n_paths; i++) {
        if (!pn_is_directory(paths[i])) {
            PN_TRY(check_file(paths[i], true, on, &report));
            continue;
        }
        name_list files = { 0 };
        pn_status s = list_folder(paths[i], &files);
        for (size_t k = 0; !s && k < files.n; k++) s = check_file(files.item[k], false, on, &report);
        names_free(&files);
        PN_TRY(s);
    }
    return pn_report_end(&report);
}
