#include "weights_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "safetensors.h"

typedef struct entry {
    pn_weight_decl decl; /* its name is owned */
    int64_t n_elems, n_bytes;
    int shard;
    int64_t order;  /* as declared */
    int64_t offset; /* in the shard's file */
    bool written;
} entry;

typedef struct shard {
    char *path, *part; /* final name, and the name until commit */
    bool created;
    int64_t n_bytes; /* of data */
} shard;

struct pn_weights_writer {
    char *dir;
    entry *entry;    /* [n] by shard, then by place in its file */
    entry **by_name; /* [n] sorted */
    int64_t n;
    shard *shard; /* [n_shards] */
    int n_shards;
    bool committed;
};

static char *text(const char *format, ...) PN_PRINTF(1, 2);
static char *text(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *s = NULL;
    if (vasprintf(&s, format, args) < 0) s = NULL;
    va_end(args);
    return s;
}

/* ---- planning ---- */

static int in_name_order(const void *a, const void *b) {
    return strcmp((*(entry *const *)a)->decl.name, (*(entry *const *)b)->decl.name);
}

/* Wide elements first, so that every tensor is aligned to its own dtype. */
static int in_file_order(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    size_t wx = pn_dtype_bytes(x->decl.dtype), wy = pn_dtype_bytes(y->decl.dtype);
    if (wx != wy) return wx > wy ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static pn_status plan_entries(pn_weights_writer *w, const pn_weight_decl *decls, int64_t max_shard_bytes) {
    int64_t filled = 0, total = 0;
    w->n_shards = 1;
    for (int64_t i = 0; i < w->n; i++) {
        entry *e = &w->entry[i];
        e->decl = decls[i];
        PN_CHECK(e->decl.name = strdup(decls[i].name), PN_MEMORY, "out of memory");
        e->order = i;
        e->n_elems = 1;
        bool fits = true;
        for (int d = 0; d < e->decl.rank; d++)
            fits = fits && !__builtin_mul_overflow(e->n_elems, e->decl.shape[d], &e->n_elems);
        fits = fits && !__builtin_mul_overflow(e->n_elems, (int64_t)pn_dtype_bytes(e->decl.dtype), &e->n_bytes) &&
               !__builtin_add_overflow(total, e->n_bytes, &total);
        PN_CHECK(fits, PN_USAGE, "%s: the size of %.200s overflows 64 bits", w->dir, e->decl.name);
        if (filled && e->n_bytes > max_shard_bytes - filled) {
            w->n_shards++;
            filled = 0;
        }
        filled += e->n_bytes;
        e->shard = w->n_shards - 1;
    }
    qsort(w->entry, (size_t)w->n, sizeof *w->entry, in_file_order);
    for (int64_t i = 0; i < w->n; i++) w->by_name[i] = &w->entry[i];
    qsort(w->by_name, (size_t)w->n, sizeof *w->by_name, in_name_order);
    for (int64_t i = 1; i < w->n; i++)
        PN_CHECK(strcmp(w->by_name[i - 1]->decl.name, w->by_name[i]->decl.name) != 0, PN_USAGE,
                 "%s: tensor %.200s is declared twice", w->dir, w->by_name[i]->decl.name);
    return PN_OK;
}

static pn_status plan_shards(pn_weights_writer *w) {
    PN_CHECK(w->shard = calloc((size_t)w->n_shards, sizeof *w->shard), PN_MEMORY, "out of memory");
    for (int i = 0; i < w->n_shards; i++) {
        shard *s = &w->shard[i];
        if (w->n_shards == 1)
            s->path = text("%s/model.safetensors", w->dir);
        else
            s->path = text("%s/model-%05d-of-%05d.safetensors", w->dir, i + 1, w->n_shards);
        PN_CHECK(s->path && (s->part = text("%s.part", s->path)), PN_MEMORY, "out of memory");
    }
    return PN_OK;
}

/* ---- headers ---- */

static json_t *entry_json(const entry *e, int64_t begin) {
    json_t *shape = json_array();
    for (int d = 0; d < e->decl.rank; d++) json_array_append_new(shape, json_integer(e->decl.shape[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", pn_safetensors_dtype_name(e->decl.dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + e->n_bytes));
}

/* Padded with spaces to a multiple of 8 bytes. */
static pn_status header_text(pn_weights_writer *w, int index, char **out, size_t *n_out) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int64_t at = 0;
    bool ok = header != NULL;
    for (int64_t i = 0; ok && i < w->n; i++) {
        entry *e = &w->entry[i];
        if (e->shard != index) continue;
        ok = json_object_set_new(header, e->decl.name, entry_json(e, at)) == 0;
        e->offset = at;
        at += e->n_bytes;
    }
    w->shard[index].n_bytes = at;
    char *json = ok ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    PN_CHECK(json, PN_MEMORY, "%s: the header cannot be written: out of memory, or a tensor name is not UTF-8",
             w->shard[index].path);
    size_t n = strlen(json), padded = (n + 7) / 8 * 8;
    char *bytes = malloc(8 + padded);
    if (bytes) {
        for (int i = 0; i < 8; i++) bytes[i] = (char)((uint64_t)padded >> (8 * i));
        memcpy(bytes + 8, json, n);
        memset(bytes + 8 + n, ' ', padded - n);
    }
    free(json);
    PN_CHECK(bytes, PN_MEMORY, "out of memory");
    *out = bytes;
    *n_out = 8 + padded;
    return PN_OK;
}

static pn_status write_all(int fd, const char *path, const void *bytes, size_t n, int64_t at) {
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(fd, (const char *)bytes + done, n - done, (off_t)at + (off_t)done);
        if (k < 0 && errno == EINTR) continue;
        PN_CHECK(k > 0, PN_IO, "%s: cannot be written: %s", path, k < 0 ? strerror(errno) : "no progress");
        done += (size_t)k;
    }
    return PN_OK;
}

static pn_status close_checked(int fd, const char *path, pn_status s) {
    if (close(fd) != 0 && !s) PN_FAIL(PN_IO, "%s: cannot be written: %s", path, strerror(errno));
    return s;
}

static pn_status create_shard(pn_weights_writer *w, int index) {
    shard *sh = &w->shard[index];
    char *header;
    size_t n;
    PN_TRY(header_text(w, index, &header, &n));
    for (int64_t i = 0; i < w->n; i++)
        if (w->entry[i].shard == index) w->entry[i].offset += (int64_t)n;
    int fd = open(sh->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        free(header);
        PN_FAIL(PN_IO, "%s: cannot be created: %s", sh->part, strerror(errno));
    }
    sh->created = true;
    pn_status s = write_all(fd, sh->part, header, n, 0);
    if (!s && ftruncate(fd, (off_t)n + (off_t)sh->n_bytes) != 0)
        s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot be extended to %lld bytes: %s", sh->part,
                       (long long)sh->n_bytes + (long long)n, strerror(errno));
    free(header);
    return close_checked(fd, sh->part, s);
}

pn_status pn_weights_writer_create(const char *dir, const pn_weight_decl *decls, int64_t n, int64_t max_shard_bytes,
                                   pn_weights_writer **out) {
    *out = NULL;
    PN_CHECK(max_shard_bytes > 0, PN_USAGE, "a shard of %lld bytes is too small", (long long)max_shard_bytes);
    pn_weights_writer *w = calloc(1, sizeof *w);
    PN_CHECK(w, PN_MEMORY, "out of memory");
    pn_status s;
    w->dir = strdup(dir);
    w->entry = calloc((size_t)n + 1, sizeof *w->entry);
    w->by_name = calloc((size_t)n + 1, sizeof *w->by_name);
    if (!w->dir || !w->entry || !w->by_name) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    w->n = n;
    PN_TRY_GOTO(s, plan_entries(w, decls, max_shard_bytes), fail);
    PN_TRY_GOTO(s, plan_shards(w), fail);
    for (int i = 0; i < w->n_shards; i++) PN_TRY_GOTO(s, create_shard(w, i), fail);
    *out = w;
    return PN_OK;
fail:
    pn_weights_writer_destroy(&w);
    return s;
}

/* ---- data ---- */

static int name_against(const void *name, const void *e) {
    return strcmp(name, (*(entry *const *)e)->decl.name);
}

/* Of a tensor that the host cannot read in pieces. */
static pn_status write_whole(int fd, const char *path, const entry *e, const pn_tensor *t) {
    void *values = malloc((size_t)e->n_bytes + 1);
    PN_CHECK(values, PN_MEMORY, "out of memory");
    pn_status s = pn_tensor_read(t, values, e->decl.dtype);
    if (!s) s = write_all(fd, path, values, (size_t)e->n_bytes, e->offset);
    free(values);
    return s;
}

static pn_status write_converted(int fd, const char *path, const entry *e, const pn_tensor *t) {
    if (pn_pool_kind_of(t->storage->pool) == PN_POOL_DEVICE) return write_whole(fd, path, e, t);
    size_t to = pn_dtype_bytes(e->decl.dtype), from = pn_dtype_bytes(t->dtype);
    if (t->dtype == e->decl.dtype) return write_all(fd, path, pn_data(t), (size_t)e->n_bytes, e->offset);
    enum { PIECE = 1 << 18 };
    char *piece = malloc(PIECE * to);
    PN_CHECK(piece, PN_MEMORY, "out of memory");
    pn_status s = PN_OK;
    for (int64_t i = 0; !s && i < e->n_elems; i += PIECE) {
        int64_t m = e->n_elems - i < PIECE ? e->n_elems - i : PIECE;
        pn_convert(piece, e->decl.dtype, (const char *)pn_data(t) + (size_t)i * from, t->dtype, m);
        s = write_all(fd, path, piece, (size_t)m * to, e->offset + i * (int64_t)to);
    }
    free(piece);
    return s;
}

pn_status pn_weights_writer_put(pn_weights_writer *w, const char *name, const pn_tensor *t) {
    entry **hit = bsearch(name, w->by_name, (size_t)w->n, sizeof *w->by_name, name_against);
    PN_CHECK(hit, PN_USAGE, "%s: tensor %.200s was not declared", w->dir, name);
    entry *e = *hit;
    PN_CHECK(!e->written, PN_USAGE, "%s: tensor %.200s is written twice", w->dir, name);
    pn_tensor declared = { .rank = e->decl.rank };
    memcpy(declared.shape, e->decl.shape, sizeof declared.shape);
    PN_CHECK(pn_tensor_same_shape(&declared, t), PN_USAGE, "%s: tensor %.200s has shape %s, declared was %s", w->dir,
             name, pn_tensor_shape_text(t), pn_tensor_shape_text(&declared));
    const char *path = w->shard[e->shard].part;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    PN_CHECK(fd >= 0, PN_IO, "%s: cannot be written: %s", path, strerror(errno));
    PN_TRY(close_checked(fd, path, write_converted(fd, path, e, t)));
    e->written = true;
    return PN_OK;
}

/* ---- commit ---- */

static pn_status write_index(const pn_weights_writer *w, const char *path) {
    json_t *map = json_object();
    int64_t total = 0;
    for (int64_t i = 0; i < w->n; i++) {
        const entry *e = w->by_name[i];
        json_object_set_new(map, e->decl.name, json_string(strrchr(w->shard[e->shard].path, '/') + 1));
        total += e->n_bytes;
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    PN_CHECK(index, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(path, index);
    json_decref(index);
    return s;
}

static pn_status commit_names(pn_weights_writer *w, const char *single, const char *index) {
    for (int i = 0; i < w->n_shards; i++) PN_TRY(pn_file_sync(w->shard[i].part));
    for (int i = 0; i < w->n_shards; i++)
        PN_CHECK(rename(w->shard[i].part, w->shard[i].path) == 0, PN_IO, "%s: cannot be renamed to %s: %s",
                 w->shard[i].part, w->shard[i].path, strerror(errno));
    const char *stale = index;
    if (w->n_shards > 1) {
        PN_TRY(write_index(w, index));
        stale = single;
    }
    PN_CHECK(unlink(stale) == 0 || errno == ENOENT, PN_IO, "%s: an earlier model's file cannot be removed: %s", stale,
             strerror(errno));
    return PN_OK;
}

pn_status pn_weights_writer_commit(pn_weights_writer *w) {
    for (int64_t i = 0; i < w->n; i++)
        PN_CHECK(w->entry[i].written, PN_USAGE, "%s: tensor %.200s was declared and never written", w->dir,
                 w->entry[i].decl.name);
    char single[PN_PATH_MAX], index[PN_PATH_MAX];
    PN_TRY(pn_path_join(single, w->dir, "model.safetensors"));
    PN_TRY(pn_path_join(index, w->dir, "model.safetensors.index.json"));
    PN_TRY(commit_names(w, single, index));
    w->committed = true;
    return PN_OK;
}

void pn_weights_writer_destroy(pn_weights_writer **w) {
    if (!w || !*w) return;
    for (int i = 0; (*w)->shard && i < (*w)->n_shards; i++) {
        shard *s = &(*w)->shard[i];
        if (s->created && !(*w)->committed) unlink(s->part);
        free(s->path);
        free(s->part);
    }
    for (int64_t i = 0; (*w)->entry && i < (*w)->n; i++) free((char *)(*w)->entry[i].decl.name);
    free((*w)->shard);
    free((*w)->entry);
    free((*w)->by_name);
    free((*w)->dir);
    free(*w);
    *w = NULL;
}
