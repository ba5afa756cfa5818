#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "files.h"
#include "mixture_internal.h"
#include "permute.h"

/* ---- shards of a part ---- */

static pn_status add_set(pn_mixture *m, pn_part *p, const char *dir, const char *where) {
    pn_token_set *set;
    PN_TRY(pn_token_set_open(dir, &set));
    const pn_token_info *info = pn_token_set_info(set);
    pn_status s;
    PN_TRY_GOTO(s, pn_token_set_needs(set, pn_tokenizer_hash(m->tokenizer)), fail);
    int split = 0;
    while (split < PN_SPLITS && strcmp(pn_split_names[split], info->split)) split++;
    if (split == PN_SPLITS)
        PN_FAIL_GOTO(s, PN_FORMAT, fail, "%s: its split is \"%.40s\"; it must be train, search or heldout", dir,
                     info->split);
    const int64_t n_windows = info->n_tokens / m->sequence_length;
    if (!n_windows)
        PN_FAIL_GOTO(s, PN_USAGE, fail, "%s: %s has %lld tokens, fewer than one row of %lld", where, dir,
                     (long long)info->n_tokens, (long long)m->sequence_length);
    pn_windows *w = &p->windows[split];
    pn_token_set **sets = realloc(w->sets, (size_t)(w->n + 1) * sizeof(*sets));
    if (sets) w->sets = sets;
    int64_t *first = realloc(w->first, (size_t)(w->n + 2) * sizeof(*first));
    if (first) w->first = first;
    if (!sets || !first) PN_FAIL_GOTO(s, PN_MEMORY, fail, "%s: out of memory", where);
    if (w->n == 0) first[0] = 0;
    sets[w->n] = set;
    first[w->n + 1] = first[w->n] + n_windows;
    w->n++;
    return PN_OK;
fail:
    pn_token_set_close(&set);
    return s;
}

/* dir is a set, or holds sets named after their splits. */
static pn_status add_directory(pn_mixture *m, pn_part *p, const char *dir, const char *where) {
    char path[PN_PATH_MAX], manifest[PN_PATH_MAX];
    PN_TRY(pn_path_join(manifest, dir, "manifest.json"));
    bool found = false;
    for (int split = 0; split < PN_SPLITS && !pn_file_exists(manifest); split++) {
        PN_TRY(pn_path_join(path, dir, pn_split_names[split]));
        if (!pn_is_directory(path)) continue;
        PN_TRY(add_set(m, p, path, where));
        found = true;
    }
    return found ? PN_OK : add_set(m, p, dir, where);
}

/* ---- parts ---- */

static pn_status check_documents(const pn_mixture *m, const pn_mixture_part *c, const pn_part *p, const char *where) {
    const int64_t most = m->sequence_length - pn_doc_frame_tokens(m->frame),
                  least = p->skill->type->least_bytes(p->skill);
    PN_CHECK(least <= most, PN_USAGE,
             "%s: a document of skill %s needs %lld bytes, and a row of %lld tokens holds %lld; "
             "raise the sequence length or ask for less",
             where, c->skill->name, (long long)least, (long long)m->sequence_length, (long long)most);
    if (c->document_max == 0) return PN_OK;
    PN_CHECK(least <= c->document_min && c->document_min <= c->document_max && c->document_max <= most, PN_USAGE,
             "%s: document_bytes is %lld to %lld; for skill %s in rows of %lld tokens it must lie in %lld .. %lld",
             where, (long long)c->document_min, (long long)c->document_max, c->skill->name,
             (long long)m->sequence_length, (long long)least, (long long)most);
    return PN_OK;
}

static pn_status create_part(pn_mixture *m, const pn_mixture_part *c, pn_part *p) {
    const char *where = c->where ? c->where : "mixture";
    const pn_ramp w = c->weight;
    PN_CHECK(w.from >= 0 && w.from < 1e12 && w.to >= 0 && w.to < 1e12, PN_USAGE,
             "%s: weight is %g; it must be 0 or more", where, w.from >= 0 && w.from < 1e12 ? w.to : w.from);
    PN_CHECK(w.from == w.to || m->rows, PN_USAGE,
             "%s: weight changes from %g to %g, which only a stage of finetune can do; give one number", where, w.from,
             w.to);
    PN_CHECK(!c->skill != !c->n_shards, PN_USAGE, "%s: a part names either a skill or shards", where);
    p->weight = c->weight;
    for (int k = 0; k < PN_CLASS_COUNT; k++) p->class_weight[k] = (float)c->class_weight[k];
    p->document_min = c->document_min;
    p->document_max = c->document_max;
    for (int64_t i = 0; i < c->n_shards; i++) PN_TRY(add_directory(m, p, c->shards[i], where));
    if (!c->skill) return PN_OK;
    PN_TRY(pn_skill_create(c->skill, c->options, where, &p->skill));
    return check_documents(m, c, p, where);
}

bool pn_mixture_has(const pn_mixture *m, pn_split split) {
    return m->schedule[split].n_segments > 0;
}

/* ---- the mixture ---- */

static pn_status create(const pn_mixture_config *c, pn_mixture *m) {
    PN_CHECK(c->n_parts >= 1 && c->n_parts <= PN_MIXTURE_PARTS_MAX, PN_USAGE,
             "mixture: %lld parts; there must be 1 to %d", (long long)c->n_parts, PN_MIXTURE_PARTS_MAX);
    PN_CHECK(c->sequence_length >= 2 && c->sequence_length <= 1 << 24, PN_USAGE,
             "mixture: rows of %lld tokens; they must have 2 to %d", (long long)c->sequence_length, 1 << 24);
    m->tokenizer = c->tokenizer;
    m->frame = c->frame;
    m->sequence_length = c->sequence_length;
    m->seed = c->seed;
    m->rows = c->rows;
    m->pad = pn_tokenizer_pad(c->tokenizer);
    if (m->pad < 0) m->pad = pn_tokenizer_eos(c->tokenizer);
    if (m->pad < 0) m->pad = 0;
    m->parts = calloc((size_t)c->n_parts, sizeof *m->parts);
    PN_CHECK(m->parts, PN_MEMORY, "mixture: out of memory");
    m->n_parts = c->n_parts;
    for (int64_t i = 0; i < c->n_parts; i++) PN_TRY(create_part(m, &c->parts[i], &m->parts[i]));
    bool any = false;
    for (int split = 0; split < PN_SPLITS; split++) {
        PN_TRY(pn_mixture_schedule(m, split));
        any = any || pn_mixture_has(m, split);
    }
    PN_CHECK(any, PN_USAGE, "mixture: every part has weight 0");
    return PN_OK;
}

pn_status pn_mixture_create(const pn_mixture_config *config, pn_mixture **out) {
    *out = NULL;
    pn_mixture *m = calloc(1, sizeof *m);
    PN_CHECK(m, PN_MEMORY, "mixture: out of memory");
    pn_status s = create(config, m);
    if (s)
        pn_mixture_destroy(&m);
    else
        *out = m;
    return s;
}

void pn_mixture_destroy(pn_mixture **out) {
    pn_mixture *m = *out;
    *out = NULL;
    if (!m) return;
    for (int64_t i = 0; i < m->n_parts; i++) {
        pn_skill_destroy(&m->parts[i].skill);
        for (int split = 0; split < PN_SPLITS; split++) {
            pn_windows *w = &m->parts[i].windows[split];
            for (int64_t k = 0; k < w->n; k++) pn_token_set_close(&w->sets[k]);
            free(w->sets);
            free(w->first);
        }
    }
    for (int split = 0; split < PN_SPLITS; split++) free(m->schedule[split].segment);
    pn_token_doc_free(&m->doc);
    free(m->parts);
    free(m);
}

void pn_mixture_print(const pn_mixture *m, pn_split split, FILE *out) {
    const pn_schedule *s = &m->schedule[split];
    for (int64_t i = 0; i < m->n_parts && s->n_segments > 0; i++) {
        const pn_part *p = &m->parts[i];
        const pn_windows *w = &p->windows[split];
        const double scale = 100.0 / (double)s->period;
        fprintf(out, "  %5.1f%%  ", scale * s->segment[0].rows[i]);
        if (s->n_segments > 1) fprintf(out, "to %5.1f%%  ", scale * s->segment[s->n_segments - 1].rows[i]);
        if (p->skill)
            fprintf(out, "skill %s: %s\n", p->skill->type->name, p->skill->type->summary);
        else
            fprintf(out, "shards: %lld rows of %lld tokens in %lld sets\n", (long long)(w->n ? w->first[w->n] : 0),
                    (long long)m->sequence_length, (long long)w->n);
    }
}

/* ---- from a config ---- */

typedef struct part_keys {
    const char *skill;
    pn_string_list shards;
    pn_ramp weight;
    double noise_weight, text_weight, answer_weight;
    pn_int_list document_bytes;
} part_keys;

const pn_option pn_mixture_keys[] = {
    PN_OPT_STRING(part_keys, skill, NULL, "a generator of documents (`postnas list skills`)", .example = "recall"),
    PN_OPT_STRINGS(part_keys, shards, NULL, "or directories of token shards (`postnas data`)",
                   .example = "[shards/web]"),
    PN_OPT_RAMP(part_keys, weight, 1, 0, 1e9,
                "share of the rows, relative to the other parts; in a stage of finetune also from start to end"),
    PN_OPT_FLOAT(part_keys, noise_weight, 1, 0, 1e6, "loss weight of tokens that are random"),
    PN_OPT_FLOAT(part_keys, text_weight, 1, 0, 1e6, "loss weight of ordinary tokens"),
    PN_OPT_FLOAT(part_keys, answer_weight, 1, 0, 1e6, "loss weight of answers"),
    PN_OPT_INTS(part_keys, document_bytes, NULL, 1, 1 << 24,
                "a skill's document, least and most bytes; one number: all alike; none: as the row has room",
                .example = "[64, 255]"),
    PN_OPT_END,
};

typedef struct part_text {
    char path[128], where[512];
    part_keys keys;
    _Alignas(8) unsigned char options[PN_SKILL_OPTIONS_BYTES];
} part_text;

static pn_status read_part(pn_config *config, part_text *t, pn_mixture_part *p) {
    PN_TRY(pn_config_read(config, t->path, pn_mixture_keys, &t->keys));
    const part_keys *k = &t->keys;
    snprintf(t->where, sizeof t->where, "%s", pn_config_where(config, t->path));
    const pn_int_list *bytes = &k->document_bytes;
    PN_CHECK(bytes->n <= 2, PN_USAGE, "%s: document_bytes has %lld numbers; give the least and the most", t->where,
             (long long)bytes->n);
    *p = (pn_mixture_part){ .weight = k->weight,
                            .where = t->where,
                            .shards = k->shards.item,
                            .n_shards = k->shards.n,
                            .class_weight = { k->noise_weight, k->text_weight, k->answer_weight },
                            .document_min = bytes->n ? bytes->item[0] : 0,
                            .document_max = bytes->n ? bytes->item[bytes->n - 1] : 0 };
    if (!k->skill) return PN_OK;
    p->skill = pn_skill_find(k->skill);
    if (!p->skill) {
        int n;
        const char *const *names = pn_skill_names(&n), *near = pn_nearest(k->skill, names, n);
        PN_FAIL(PN_USAGE, "%s: no skill is called \"%s\"%s%s%s; `postnas list skills` names them", t->where, k->skill,
                near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    p->options = t->options;
    return pn_config_read(config, t->path, p->skill->options, t->options);
}

typedef struct part_list {
    part_text *text;
    pn_mixture_part *part;
    int n;
} part_list;

static void free_parts(part_list *l) {
    free(l->part);
    free(l->text);
}

static pn_status read_parts(pn_config *config, const char *path, part_list *l) {
    PN_TRY(pn_config_list_size(config, path, &l->n));
    PN_CHECK(l->n >= 1 && l->n <= PN_MIXTURE_PARTS_MAX, PN_USAGE,
             "%s: %s must be a list of 1 to %d parts, each with a skill or shards", pn_config_name(config), path,
             PN_MIXTURE_PARTS_MAX);
    l->text = calloc((size_t)l->n, sizeof *l->text);
    l->part = calloc((size_t)l->n, sizeof *l->part);
    PN_CHECK(l->text && l->part, PN_MEMORY, "mixture: out of memory");
    for (int i = 0; i < l->n; i++) {
        snprintf(l->text[i].path, sizeof l->text[i].path, "%s.%d", path, i);
        PN_TRY(read_part(config, &l->text[i], &l->part[i]));
    }
    return PN_OK;
}

pn_status pn_mixture_read(pn_config *config, const char *path, const pn_mixture_config *base, pn_mixture **out) {
    *out = NULL;
    part_list l = { 0 };
    pn_mixture_config full = *base;
    pn_status s = read_parts(config, path, &l);
    full.parts = l.part;
    full.n_parts = l.n;
    if (!s) s = pn_mixture_create(&full, out);
    free_parts(&l);
    return s;
}

pn_status pn_mixture_read_keys(pn_config *config, const char *path) {
    part_list l = { 0 };
    pn_status s = read_parts(config, path, &l);
    free_parts(&l);
    return s;
}

int64_t pn_mixture_row_tokens(const pn_mixture *m) {
    return m->sequence_length;
}

uint64_t pn_mixture_hash(const pn_mixture *m) {
    XXH3_state_t *h = XXH3_createState();
    PN_ASSERT(h);
    XXH3_64bits_reset(h);
    const uint64_t whole[] = { pn_tokenizer_hash(m->tokenizer), m->seed, (uint64_t)m->sequence_length,
                               (uint64_t)m->frame.begin, (uint64_t)m->frame.end };
    XXH3_64bits_update(h, whole, sizeof whole);
    for (int64_t i = 0; i < m->n_parts; i++) {
        const pn_part *p = &m->parts[i];
        const uint64_t part[] = { p->skill ? pn_skill_hash(p->skill) : 0, (uint64_t)p->document_min,
                                  (uint64_t)p->document_max };
        const bool changes = p->weight.from != p->weight.to;
        XXH3_64bits_update(h, &p->weight, changes ? sizeof p->weight : sizeof p->weight.from);
        if (changes) XXH3_64bits_update(h, &m->rows, sizeof m->rows);
        XXH3_64bits_update(h, p->class_weight, sizeof p->class_weight);
        XXH3_64bits_update(h, part, sizeof part);
        for (int split = 0; split < PN_SPLITS; split++) {
            const pn_windows *w = &p->windows[split];
            for (int64_t k = 0; k < w->n; k++) {
                const pn_token_info *info = pn_token_set_info(w->sets[k]);
                XXH3_64bits_update(h, &info->content_hash, sizeof info->content_hash);
            }
        }
    }
    uint64_t hash = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return hash;
}
