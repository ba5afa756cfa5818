/* pn_weights over safetensors: one file, or the shards of an index
 *
 *     {"metadata": {"total_size": 9}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors", ...}} */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "json.h"
#include "safetensors.h"
#include "weights_internal.h"

enum { MAX_INDEX_BYTES = 100 * 1000 * 1000 };

typedef struct shards {
    pn_safetensors **file; /* [n] */
    char **name;           /* [n] file names inside the directory */
    int n;
    json_t *index; /* NULL for a single file */
} shards;

static void close_shards(void *source) {
    shards *s = source;
    for (int i = 0; i < s->n; i++) {
        pn_safetensors_close(&s->file[i]);
        free(s->name[i]);
    }
    free(s->file);
    free(s->name);
    json_decref(s->index);
    free(s);
}

static pn_status read_entry(const pn_weights_entry *e, pn_tensor *dst) {
    return pn_safetensors_read_info(e->file, e->stored, dst);
}

static void fill_entry(pn_weights_entry *e, const pn_safetensors *f, const pn_tensor_info *info) {
    *e = (pn_weights_entry){ .info = *info, .file = f, .stored = info, .read = read_entry };
}

static pn_status make_entries(pn_weights *w, int64_t n) {
    PN_CHECK(w->entry = calloc((size_t)n + 1, sizeof *w->entry), PN_MEMORY, "out of memory");
    w->count = n;
    return PN_OK;
}

static pn_status add_shard(shards *s, const char *path, const char *name) {
    pn_safetensors **file = realloc(s->file, ((size_t)s->n + 1) * sizeof *file);
    if (file) s->file = file;
    char **names = realloc(s->name, ((size_t)s->n + 1) * sizeof *names);
    if (names) s->name = names;
    char *copy = strdup(name);
    if (!file || !names || !copy) {
        free(copy);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    pn_status status = pn_safetensors_open(path, &s->file[s->n]);
    if (status) {
        free(copy);
        return pn_trace_at(__FILE__, __LINE__, status, name);
    }
    s->name[s->n++] = copy;
    return PN_OK;
}

static pn_status open_single(pn_weights *w, shards *s, const char *path) {
    PN_TRY(add_shard(s, path, path));
    PN_TRY(make_entries(w, pn_safetensors_count(s->file[0])));
    for (int64_t i = 0; i < w->count; i++) fill_entry(&w->entry[i], s->file[0], pn_safetensors_info(s->file[0], i));
    pn_weights_sort(w);
    return PN_OK;
}

/* The shard of this file name, opened on first use. dir_bytes: length of the directory part of index_path. */
static pn_status shard_of(shards *s, const char *index_path, size_t dir_bytes, const char *name, pn_safetensors **out) {
    for (int i = s->n - 1; i >= 0; i--) { /* neighbours share a shard: the newest is the likely one */
        if (strcmp(s->name[i], name) != 0) continue;
        *out = s->file[i];
        return PN_OK;
    }
    PN_CHECK(name[0] && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, ".."), PN_FORMAT,
             "%s: weight_map names the file '%.200s'; only files beside the index are read", index_path, name);
    char *path = malloc(dir_bytes + strlen(name) + 1);
    PN_CHECK(path, PN_MEMORY, "out of memory");
    memcpy(path, index_path, dir_bytes);
    strcpy(path + dir_bytes, name);
    pn_status status = add_shard(s, path, name);
    free(path);
    PN_TRY(status);
    *out = s->file[s->n - 1];
    return PN_OK;
}

static pn_status open_index(pn_weights *w, shards *s, const char *path) {
    PN_TRY(pn_json_load(path, MAX_INDEX_BYTES, &s->index));
    json_t *map = json_object_get(s->index, "weight_map");
    PN_CHECK(json_is_object(map), PN_FORMAT, "%s: weight_map is missing or not an object", path);
    const char *slash = strrchr(path, '/');
    size_t dir_bytes = slash ? (size_t)(slash - path) + 1 : 0;
    PN_TRY(make_entries(w, (int64_t)json_object_size(map)));
    const char *name;
    json_t *file_name;
    int64_t at = 0;
    json_object_foreach(map, name, file_name) {
        PN_CHECK(json_is_string(file_name), PN_FORMAT, "%s: weight_map: the file of %.200s is not a string", path,
                 name);
        pn_safetensors *f;
        PN_TRY(shard_of(s, path, dir_bytes, json_string_value(file_name), &f));
        const pn_tensor_info *info = pn_safetensors_find(f, name);
        PN_CHECK(info, PN_FORMAT, "%s: weight_map says that %.200s is in %s, which has no such tensor", path, name,
                 json_string_value(file_name));
        fill_entry(&w->entry[at++], f, info);
    }
    pn_weights_sort(w);
    return PN_OK;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static pn_status open_path(pn_weights *w, shards *s, const char *path) {
    PN_CHECK(pn_file_exists(path), PN_IO, "%s: there is no such directory or file", path);
    if (!pn_is_directory(path)) return ends_with(path, ".json") ? open_index(w, s, path) : open_single(w, s, path);
    char file[PN_PATH_MAX];
    PN_TRY(pn_path_join(file, path, "model.safetensors"));
    if (pn_file_exists(file)) return open_single(w, s, file);
    PN_TRY(pn_path_join(file, path, "model.safetensors.index.json"));
    if (pn_file_exists(file)) return open_index(w, s, file);
    PN_FAIL(PN_IO, "%s: there is neither model.safetensors nor model.safetensors.index.json in it", path);
}

pn_status pn_weights_open(const char *path, pn_weights **out) {
    *out = NULL;
    pn_weights *w = calloc(1, sizeof *w);
    PN_CHECK(w, PN_MEMORY, "out of memory");
    pn_status status;
    w->close_source = close_shards;
    shards *s = w->source = calloc(1, sizeof(shards));
    w->path = strdup(path);
    if (!s || !w->path) PN_FAIL_GOTO(status, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(status, open_path(w, s, path), fail);
    *out = w;
    return PN_OK;
fail:
    pn_weights_close(&w);
    return status;
}
