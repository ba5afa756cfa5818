#include "latency.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "block_cost.h"
#include "device.h"
#include "files.h"
#include "json.h"
#include "latency_parts.h"
#include "log.h"
#include "machine.h"
#include "threads.h"

enum { MOST_ENTRIES = 1 << 14, FILE_LIMIT = 64 << 20, VERSION = 1 };
static const char format[] = "postnas latency table";
static const double shortest = 1e-12, longest = 1e9; /* seconds */

const pn_option pn_latency_option_table[] = {
    PN_OPT_STRING(pn_latency_options, table, NULL,
                  "latency table of another run, state/latency.json in it, whose measurements this run starts with",
                  .example = "runs/first/state/latency.json"),
    PN_OPT_INT(pn_latency_options, batch, 1, 1, 4096, "sequences that are decoded at once"),
    PN_OPT_INTS(pn_latency_options, context, "[4096, 65536]", 1, 1 << 24, "tokens before which speed is measured", ),
    PN_OPT_INT(pn_latency_options, chunk, 512, 1, 1 << 20, "tokens of the pieces that a prompt is read in"),
    PN_OPT_INT(pn_latency_options, repeat, 15, 1, PN_TIMING_MOST_RUNS,
               "timed runs of each measurement, after a warm-up"),
    PN_OPT_FLOAT(pn_latency_options, seconds, 1, 0, 3600, "fewer runs where they take longer than that, at least one"),
    PN_OPT_END,
};

typedef struct entry {
    json_t *key;   /* owned */
    uint64_t hash; /* of its text */
    pn_timing timing;
} entry;

struct pn_latency {
    char file[PN_PATH_MAX]; /* "": in memory only */
    entry *entry;
    int n, cap;
    int64_t measured;
    bool frozen;
    pn_backend backend;
    pn_dtype dtype;
    char gpu[sizeof((pn_device_info *)0)->name]; /* of backend PN_CUDA */
};

/* ---- settings ---- */

static pn_status weights_of(const pn_model_config *c, double *out) {
    const double D = (double)c->dims.hidden;
    pn_block_spec mlp;
    pn_block_cost cost;
    PN_TRY(pn_block_spec_default(&pn_block_mlp, &mlp));
    PN_TRY(pn_block_spec_cost(&mlp, &c->dims, 1, 0, &cost));
    *out = (double)c->vocab * D + D + (double)c->n_layers * (cost.parameters + 2 * D);
    for (int l = 0; l < c->n_layers; l++) {
        PN_TRY(pn_block_spec_cost(&c->layer[l], &c->dims, 1, 0, &cost));
        *out += cost.parameters;
    }
    return PN_OK;
}

pn_status pn_latency_setting_of(const pn_latency_options *o, pn_latency_pass pass, int64_t context,
                                const pn_model_config *base, pn_latency_setting *out) {
    double weights, beyond = (double)pn_bytes_beyond_caches();
    PN_TRY(weights_of(base, &weights));
    weights *= sizeof(float);
    *out = (pn_latency_setting){ .pass = pass,
                                 .batch = o->batch,
                                 .context = context,
                                 .chunk = o->chunk,
                                 .working_set = (int64_t)(weights < beyond ? weights : beyond),
                                 .layers = base->n_layers,
                                 .repeat = o->repeat,
                                 .seconds = o->seconds };
    return PN_OK;
}

double pn_latency_tokens(const pn_latency_setting *s) {
    return (double)(pn_latency_sequences(s) * (s->pass == PN_LATENCY_DECODE ? 1 : s->context));
}

/* ---- keys ---- */

static uint64_t hash_of(const json_t *key) {
    char *text = json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS);
    uint64_t hash = text ? XXH3_64bits(text, strlen(text)) : 0;
    free(text);
    return hash;
}

/* Everything that a measurement depends on; vocab 0: not on the vocabulary. The caller owns *out. */
static pn_status key_of(const pn_latency *t, const char *part, const char *options, const pn_dims *d, int64_t vocab,
                        const pn_latency_setting *s, json_t **out) {
    bool decode = s->pass == PN_LATENCY_DECODE;
    json_t *key =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:I}", "pass", decode ? "decode" : "prefill", "part",
                  part, "options", options, "hidden", (json_int_t)d->hidden, "heads", (json_int_t)d->heads, "kv_heads",
                  (json_int_t)d->kv_heads, "head_dim", (json_int_t)d->head_dim, "intermediate",
                  (json_int_t)d->intermediate, "qkv_bias", d->qkv_bias, "context", (json_int_t)s->context);
    int failed = !key;
    if (vocab) failed |= json_object_set_new(key, "vocab", json_integer(vocab));
    if (decode) {
        failed |= json_object_set_new(key, "batch", json_integer(s->batch));
        failed |= json_object_set_new(key, "working_set", json_integer(s->working_set));
        failed |= json_object_set_new(key, "layers", json_integer(s->layers));
    } else {
        failed |= json_object_set_new(key, "chunk", json_integer(s->chunk));
        if (pn_latency_sequences(s) != 1) failed |= json_object_set_new(key, "prompts", json_integer(s->prompts));
    }
    if (t->backend == PN_CUDA) {
        failed |= json_object_set_new(key, "precision", json_string(pn_dtype_name(t->dtype)));
        failed |= json_object_set_new(key, "device", json_string(t->gpu));
    } else {
        failed |= json_object_set_new(key, "threads", json_integer(pn_threads()));
        failed |= json_object_set_new(key, "device", json_string(pn_cpu_name()));
    }
    *out = key;
    if (!failed) return PN_OK;
    json_decref(key);
    PN_FAIL(PN_MEMORY, "out of memory");
}

/* "num_heads: 9, expand_v: 1.0" */
static void options_text(const pn_block_spec *spec, pn_buf *out) {
    for (const pn_option *o = spec->type->options; o && o->name; o++) {
        pn_buf_printf(out, "%s%s: ", out->n_bytes ? ", " : "", o->name);
        pn_option_text(o, spec->options, out);
    }
}

/* ---- the table ---- */

static entry *find(const pn_latency *t, const json_t *key, uint64_t hash) {
    for (int i = 0; i < t->n; i++)
        if (t->entry[i].hash == hash && json_equal(t->entry[i].key, key)) return &t->entry[i];
    return NULL;
}

/* Takes a reference to key. */
static pn_status append(pn_latency *t, json_t *key, const pn_timing *timing) {
    PN_CHECK(t->n < MOST_ENTRIES, PN_USAGE, "latency: more than %d measurements in one table", (int)MOST_ENTRIES);
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 64;
        entry *grown = realloc(t->entry, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        t->entry = grown;
        t->cap = cap;
    }
    t->entry[t->n++] = (entry){ json_incref(key), hash_of(key), *timing };
    return PN_OK;
}

static pn_status read_number(const json_t *root, const char *file, int i, const char *name, double min, double max,
                             double *out) {
    char path[64];
    snprintf(path, sizeof path, "entries.%d.%s", i, name);
    PN_TRY(pn_json_get_f64(root, file, path, min, max, out));
    return PN_OK;
}

static pn_status read_entry(pn_latency *t, const json_t *root, const char *file, int i) {
    pn_timing timing;
    char path[64];
    const json_t *object;
    snprintf(path, sizeof path, "entries.%d.key", i);
    PN_TRY(pn_json_get_object(root, file, path, &object));
    json_t *key = json_object_get(json_array_get(json_object_get(root, "entries"), (size_t)i), "key");
    PN_CHECK(!find(t, key, hash_of(key)), PN_FORMAT, "%s: %s is that of an entry before; remove one of them", file,
             path);
    PN_TRY(read_number(root, file, i, "seconds", shortest, longest, &timing.median));
    PN_TRY(read_number(root, file, i, "least", 0, timing.median, &timing.least));
    PN_TRY(read_number(root, file, i, "most", timing.median, longest, &timing.most));
    snprintf(path, sizeof path, "entries.%d.runs", i);
    PN_TRY(pn_json_get_i64(root, file, path, 1, PN_TIMING_MOST_RUNS, &timing.runs));
    PN_TRY(append(t, key, &timing));
    return PN_OK;
}

static pn_status read_root(pn_latency *t, const json_t *root, const char *file) {
    const char *name;
    const json_t *entries;
    int64_t version;
    PN_TRY(pn_json_get_str(root, file, "format", &name));
    PN_CHECK(!strcmp(name, format), PN_FORMAT, "%s: format is \"%.60s\", not \"%s\"; name a run's state/latency.json",
             file, name, format);
    PN_TRY(pn_json_get_i64(root, file, "version", VERSION, VERSION, &version));
    PN_TRY(pn_json_get_array(root, file, "entries", 0, MOST_ENTRIES, &entries));
    for (size_t i = 0; i < json_array_size(entries); i++) PN_TRY(read_entry(t, root, file, (int)i));
    return PN_OK;
}

static pn_status read_table(pn_latency *t, const char *file) {
    json_t *root;
    PN_TRY(pn_json_load(file, FILE_LIMIT, &root));
    pn_status s = read_root(t, root, file);
    json_decref(root);
    return s;
}

static pn_status write_table(const pn_latency *t) {
    if (!*t->file) return PN_OK;
    json_t *entries = json_array();
    for (int i = 0; i < t->n; i++) {
        const entry *e = &t->entry[i];
        json_array_append_new(entries, json_pack("{s:f, s:f, s:f, s:I, s:O}", "seconds", e->timing.median, "least",
                                                 e->timing.least, "most", e->timing.most, "runs",
                                                 (json_int_t)e->timing.runs, "key", e->key));
    }
    json_t *root = json_pack("{s:s, s:i, s:o}", "format", format, "version", (int)VERSION, "entries", entries);
    PN_CHECK(root && json_array_size(entries) == (size_t)t->n, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(t->file, root);
    json_decref(root);
    return s;
}

pn_status pn_latency_open(const char *file, const char *start, pn_latency **out) {
    pn_status s = PN_OK;
    pn_latency *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    t->backend = PN_CPU;
    t->dtype = PN_F32;
    const char *from = file && pn_file_exists(file) ? file : start;
    if (file && strlen(file) >= sizeof t->file)
        PN_FAIL_GOTO(s, PN_USAGE, fail, "latency: the path %.100s... is too long", file);
    if (file) strcpy(t->file, file);
    if (from) PN_TRY_GOTO(s, read_table(t, from), fail);
    if (file && from && from != file) PN_TRY_GOTO(s, write_table(t), fail); /* going on must not need `start` again */
    *out = t;
    return PN_OK;
fail:
    pn_latency_close(&t);
    return s;
}

void pn_latency_close(pn_latency **tp) {
    if (!tp || !*tp) return;
    for (int i = 0; i < (*tp)->n; i++) json_decref((*tp)->entry[i].key);
    free((*tp)->entry);
    free(*tp);
    *tp = NULL;
}

pn_status pn_latency_on(pn_latency *t, pn_backend backend, pn_dtype dtype) {
    pn_device_info gpu = { 0 };
    if (backend == PN_CUDA) PN_TRY(pn_device_describe(&gpu));
    memcpy(t->gpu, gpu.name, sizeof t->gpu);
    t->backend = backend;
    t->dtype = dtype;
    return PN_OK;
}

void pn_latency_freeze(pn_latency *t) {
    t->frozen = true;
}

int64_t pn_latency_measured(const pn_latency *t) {
    return t->measured;
}

/* ---- parts ---- */

/* A part: a block where there is a spec, else the ends where there is a vocabulary, else the rest of a layer. */
typedef struct part {
    const pn_block_spec *spec;
    const pn_dims *dims;
    int64_t vocab;
} part;

static const char *name_of(const part *p) {
    return p->spec ? p->spec->type->name : p->vocab ? "embedding and head" : "rest of a layer";
}

static pn_status measure(pn_latency *t, const part *p, const pn_latency_setting *setting, json_t *key, pn_timing *out) {
    PN_CHECK(!t->frozen, PN_USAGE, "%s: holds no time of %s at a context of %lld tokens on this %s with %d threads",
             *t->file ? t->file : "latency", name_of(p), (long long)setting->context,
             t->backend == PN_CUDA ? "GPU" : "processor", pn_threads());
    if (p->spec)
        PN_TRY(pn_latency_time_block(p->spec, p->dims, setting, out));
    else if (p->vocab)
        PN_TRY(pn_latency_time_ends(p->dims, p->vocab, setting, out));
    else
        PN_TRY(pn_latency_time_rest(p->dims, setting, out));
    t->measured++;
    pn_event e = pn_event_begin("latency");
    pn_event_str(&e, "part", name_of(p));
    pn_event_str(&e, "pass", setting->pass == PN_LATENCY_DECODE ? "decode" : "prefill");
    pn_event_i64(&e, "context", setting->context);
    pn_event_f64(&e, "seconds", out->median);
    pn_event_end(&e);
    PN_TRY(append(t, key, out));
    PN_TRY(write_table(t));
    return PN_OK;
}

static pn_status get(pn_latency *t, const part *p, const char *options, const pn_latency_setting *setting,
                     pn_timing *out) {
    json_t *key;
    pn_latency_setting here = *setting;
    here.backend = t->backend;
    here.dtype = t->dtype;
    PN_TRY(key_of(t, name_of(p), options, p->dims, p->vocab, &here, &key));
    const entry *known = find(t, key, hash_of(key));
    pn_status s = PN_OK;
    if (known)
        *out = known->timing;
    else
        s = measure(t, p, &here, key, out);
    json_decref(key);
    return s;
}

pn_status pn_latency_block(pn_latency *t, const pn_block_spec *spec, const pn_dims *dims,
                           const pn_latency_setting *setting, pn_timing *out) {
    pn_block_spec resolved = *spec;
    *out = (pn_timing){ 0 };
    if (spec->type == &pn_block_none) return PN_OK;
    if (spec->type->resolve) PN_TRY(spec->type->resolve(resolved.options, dims));
    const part p = { .spec = &resolved, .dims = dims };
    pn_buf options = { 0 };
    options_text(&resolved, &options);
    pn_status s = pn_buf_status(&options);
    if (!s) s = get(t, &p, pn_buf_string(&options), setting, out);
    pn_buf_free(&options);
    return s;
}

pn_status pn_latency_rest(pn_latency *t, const pn_dims *dims, const pn_latency_setting *setting, pn_timing *out) {
    const part p = { .dims = dims };
    PN_TRY(get(t, &p, "", setting, out));
    return PN_OK;
}

pn_status pn_latency_ends(pn_latency *t, const pn_dims *dims, int64_t vocab, const pn_latency_setting *setting,
                          pn_timing *out) {
    const part p = { .dims = dims, .vocab = vocab };
    PN_TRY(get(t, &p, "", setting, out));
    return PN_OK;
}

static void add(pn_timing *sum, const pn_timing *x, double times) {
    sum->median += times * x->median;
    sum->least += times * x->least;
    sum->most += times * x->most;
    if (x->runs && (!sum->runs || x->runs < sum->runs)) sum->runs = x->runs;
}

pn_status pn_latency_predict(pn_latency *t, const pn_model_config *config, const pn_latency_setting *setting,
                             pn_timing *out) {
    pn_timing x;
    *out = (pn_timing){ 0 };
    PN_TRY(pn_latency_ends(t, &config->dims, config->vocab, setting, &x));
    add(out, &x, 1);
    PN_TRY(pn_latency_rest(t, &config->dims, setting, &x));
    add(out, &x, config->n_layers);
    for (int l = 0; l < config->n_layers; l++) {
        PN_TRY(pn_latency_block(t, &config->layer[l], &config->dims, setting, &x));
        add(out, &x, 1);
    }
    return PN_OK;
}
