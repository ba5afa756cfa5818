#include "scores.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <xxhash.h>

void pn_metrics_add(pn_metrics *m, const char *name, double value) {
    PN_ASSERT(m->n < PN_METRICS_MAX && strlen(name) < sizeof m->name[0]);
    strcpy(m->name[m->n], name);
    m->value[m->n++] = value;
}

const double *pn_metrics_get(const pn_metrics *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->name[i], name)) return &m->value[i];
    return NULL;
}

static bool of_mixer(const pn_model *m, const char *name) {
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 0; c < m->layer[l].n_candidates; c++)
            if (pn_param_below(name, m->layer[l].candidate[c]->prefix)) return true;
    return false;
}

pn_status pn_scores_shared_hash(const pn_model *m, uint64_t *out) {
    uint64_t one;
    *out = 0;
    for (int i = 0; i < m->params->n; i++) {
        if (of_mixer(m, m->params->item[i]->name)) continue;
        PN_TRY(pn_param_hash(m->params->item[i], &one));
        *out += one;
    }
    return PN_OK;
}

/* Of a candidate's weights by the names they have below it: the same block in another model is the same. */
static pn_status candidate_hash(const pn_params *p, const pn_block *b, uint64_t *out) {
    uint64_t parts[] = { pn_block_spec_hash(&b->spec), 0 }, one;
    for (int i = 0; i < p->n; i++) {
        if (!pn_param_below(p->item[i]->name, b->prefix)) continue;
        PN_TRY(pn_param_hash_as(p->item[i], p->item[i]->name + strlen(b->prefix), &one));
        parts[1] += one;
    }
    *out = XXH3_64bits(parts, sizeof parts);
    return PN_OK;
}

pn_status pn_scores_identify(pn_scores *s, const pn_model *m) {
    if (!s->candidate) s->candidate = calloc((size_t)m->config.n_layers, sizeof *s->candidate);
    PN_CHECK(s->candidate, PN_MEMORY, "out of memory");
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 0; c < m->layer[l].n_candidates; c++)
            PN_TRY(candidate_hash(m->params, m->layer[l].candidate[c], &s->candidate[l][c]));
    s->backend = m->params->backend;
    return PN_OK;
}

uint64_t pn_scores_path_key(const pn_scores *s, const pn_path *path) {
    uint64_t chosen[PN_MAX_LAYERS];
    PN_ASSERT(s->candidate);
    for (int l = 0; l < path->n; l++) chosen[l] = s->candidate[l][path->choice[l]];
    return XXH3_64bits(chosen, (size_t)path->n * sizeof *chosen);
}

static pn_status insert(pn_scores *s, uint64_t path_key, const char *path, const char *task,
                        const pn_metrics *metrics) {
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 64;
        pn_score_row *grown = realloc(s->row, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        s->row = grown;
        s->cap = cap;
    }
    pn_score_row r = { .path_key = path_key, .path = strdup(path), .task = strdup(task), .metrics = *metrics };
    if (!r.path || !r.task) {
        free(r.path);
        free(r.task);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    s->row[s->n++] = r;
    return PN_OK;
}

const pn_metrics *pn_scores_find(const pn_scores *s, uint64_t path_key, const char *task) {
    for (int i = 0; i < s->n; i++)
        if (s->row[i].path_key == path_key && !strcmp(s->row[i].task, task)) return &s->row[i].metrics;
    return NULL;
}

/* One line of the file; rows of other weights are skipped. */
static pn_status parse_row(pn_scores *s, const char *line, size_t n, int number) {
    json_error_t e;
    json_t *root = json_loadb(line, n, JSON_REJECT_DUPLICATES, &e), *metrics = NULL;
    const char *key = NULL, *path = NULL, *task = NULL, *weights = NULL;
    pn_metrics m = { 0 };
    bool good = root &&
                !json_unpack(root, "{s:s, s:s, s:s, s:s, s:o}", "key", &key, "path", &path, "task", &task, "weights",
                             &weights, "metrics", &metrics) &&
                json_is_object(metrics) && json_object_size(metrics) <= PN_METRICS_MAX;
    const char *name;
    json_t *value;
    if (good) {
        json_object_foreach(metrics, name, value) {
            good = good && json_is_number(value) && strlen(name) < sizeof m.name[0];
            if (good) pn_metrics_add(&m, name, json_number_value(value));
        }
    }
    pn_status status = PN_OK;
    if (!good)
        status = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s:%d: not a score row; remove the line or the file",
                            s->file, number);
    else if (strtoull(weights, NULL, 16) == s->weights_hash)
        status = insert(s, strtoull(key, NULL, 16), path, task, &m);
    json_decref(root);
    return status;
}

/* Every whole line. An append that was cut short is left out, and with `mend` removed, so that the next row starts a
 * line of its own; what it said is measured again. */
static pn_status read_rows(pn_scores *s, FILE *f, bool mend) {
    char *line = NULL;
    size_t cap = 0;
    off_t whole = 0;
    pn_status status = PN_OK;
    ssize_t n;
    for (int number = 1; !status && (n = getline(&line, &cap, f)) > 0; number++) {
        if (line[n - 1] != '\n') {
            if (mend && truncate(s->file, whole))
                status = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot remove the unfinished line %d: %s", s->file,
                                    number, strerror(errno));
            break;
        }
        whole += n;
        status = parse_row(s, line, (size_t)n, number);
    }
    if (!status && ferror(f))
        status = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot read the scores: %s", s->file, strerror(errno));
    free(line);
    return status;
}

static pn_status open_rows(const char *file, uint64_t weights_hash, bool mend, pn_scores **out) {
    pn_scores *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    s->weights_hash = weights_hash;
    s->backend = PN_CPU;
    pn_status status = PN_OK;
    if (file && !(s->file = strdup(file))) status = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    FILE *f = s->file ? fopen(file, "re") : NULL;
    if (s->file && !f && errno != ENOENT)
        status = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot open the scores: %s", file, strerror(errno));
    if (f && !status) status = read_rows(s, f, mend);
    if (f) fclose(f);
    if (status) {
        pn_scores_close(&s);
        return status;
    }
    *out = s;
    return PN_OK;
}

pn_status pn_scores_open(const char *file, uint64_t weights_hash, pn_scores **out) {
    PN_TRY(open_rows(file, weights_hash, true, out));
    return PN_OK;
}

pn_status pn_scores_read(const char *file, uint64_t weights_hash, pn_scores **out) {
    PN_TRY(open_rows(file, weights_hash, false, out));
    free((*out)->file);
    (*out)->file = NULL;
    return PN_OK;
}

void pn_scores_close(pn_scores **s) {
    if (!s || !*s) return;
    for (int i = 0; i < (*s)->n; i++) {
        free((*s)->row[i].path);
        free((*s)->row[i].task);
    }
    free((*s)->row);
    free((*s)->candidate);
    free((*s)->file);
    free(*s);
    *s = NULL;
}

static pn_status append_row(const pn_scores *s, uint64_t path_key, const char *path, const char *task,
                            const pn_metrics *m) {
    char key[32], weights[32];
    snprintf(key, sizeof key, "%016" PRIx64, path_key);
    snprintf(weights, sizeof weights, "%016" PRIx64, s->weights_hash);
    json_t *metrics = json_object();
    for (int i = 0; i < m->n; i++) json_object_set_new(metrics, m->name[i], json_real(m->value[i]));
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "key", key, "path", path, "task", task, "weights",
                             weights, "backend", pn_backend_name(s->backend), "metrics", metrics);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    PN_CHECK(text, PN_MEMORY, "out of memory");
    FILE *f = fopen(s->file, "ae");
    bool ok = f && fprintf(f, "%s\n", text) > 0 && !fflush(f) && !fsync(fileno(f)); /* measured with more work */
    ok = f && !fclose(f) && ok;
    int error = errno;
    free(text);
    PN_CHECK(ok, PN_IO, "%s: cannot append a score: %s", s->file, strerror(error));
    return PN_OK;
}

pn_status pn_scores_add(pn_scores *s, uint64_t path_key, const char *path, const char *task,
                        const pn_metrics *metrics) {
    PN_TRY(insert(s, path_key, path, task, metrics));
    if (s->file) PN_TRY(append_row(s, path_key, path, task, metrics));
    return PN_OK;
}
