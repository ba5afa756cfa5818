#include "task.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens per batch: enough for efficient products, little enough that a path's activations stay small. */
enum { BATCH_TOKENS = 4096 };

static const char *const kinds[] = { [PN_TASK_PERPLEXITY] = "perplexity",
                                     [PN_TASK_KL] = "kl",
                                     [PN_TASK_RECALL] = "recall",
                                     [PN_TASK_CHOICE] = "multiple_choice",
                                     NULL };

static const pn_task_kind_info infos[] = {
    [PN_TASK_PERPLEXITY] = { "perplexity", "loss on every next token", { "nll", "perplexity" } },
    [PN_TASK_KL] = { "kl", "distance from the teacher's next-token distribution", { "kl", "top1" } },
    [PN_TASK_RECALL] = { "recall", "answers of a skill's documents, by distance", { "accuracy", "nll" } },
    [PN_TASK_CHOICE] = { "multiple_choice", "the listed choice of lowest loss", { "accuracy", "nll" } },
};

const pn_task_kind_info *pn_task_kinds(int *n) {
    *n = (int)(sizeof infos / sizeof *infos);
    return infos;
}

const pn_option pn_task_option_table[] = {
    PN_OPT_STRING(pn_task_options, name, NULL, "name of the task in tables and objectives", .example = "recall"),
    PN_OPT_ENUM(pn_task_options, kind, "recall", kinds, "what is measured"),
    PN_OPT_STRING(pn_task_options, skill, NULL, "skill whose documents are used; its options stand beside this key",
                  .example = "recall"),
    PN_OPT_STRING(pn_task_options, shards, NULL, "token shards used instead of a skill",
                  .example = "shards/web/search"),
    PN_OPT_STRING(pn_task_options, heldout_shards, NULL, "token shards of the held-out split",
                  .example = "shards/web/heldout"),
    PN_OPT_INT(pn_task_options, tokens, 4096, 1, 1e12, "shards: tokens of a slice"),
    PN_OPT_INT(pn_task_options, heldout_tokens, 0, 0, 1e12, "shards: tokens of a held-out slice; 0: as tokens"),
    PN_OPT_INT(pn_task_options, sequence_length, 1024, 2, 1e9, "shards: documents are cut to this many tokens"),
    PN_OPT_INT(pn_task_options, offset, 0, 0, 1e15, "shards: token at which the first slice starts"),
    PN_OPT_BOOL(pn_task_options, spread, false,
                "shards: search on windows at even distances through the set instead of one slice"),
    PN_OPT_INT(pn_task_options, documents, 64, 1, 1e9, "skill: documents"),
    PN_OPT_INT(pn_task_options, document_bytes, 512, 2, 1e7, "skill: bytes of text per document"),
    PN_OPT_INT(pn_task_options, seed, 1, 0, 9e15, "skill: seed; held-out samples use seed, seed + 1, ..."),
    PN_OPT_END,
};

/* ---- configuration ---- */

static pn_status read_spec(pn_config *c, const char *section, pn_task_spec *spec) {
    pn_task_options *o = &spec->options;
    PN_TRY(pn_config_read(c, section, pn_task_option_table, o));
    const char *where = pn_config_where(c, section);
    PN_CHECK(o->name && strlen(o->name) < 48, PN_USAGE, "%s: a task needs a name", where);
    PN_CHECK(!o->skill != !o->shards, PN_USAGE, "%s: give either skill or shards", where);
    PN_CHECK(o->skill || o->kind == PN_TASK_PERPLEXITY || o->kind == PN_TASK_KL, PN_USAGE,
             "%s: kind %s needs a skill, whose documents have known answers", where, kinds[o->kind]);
    PN_CHECK(!o->spread || (o->shards && o->heldout_shards), PN_USAGE,
             "%s: spread takes windows from all of shards; give heldout_shards, a set of its own", where);
    PN_CHECK(!o->spread || (!o->offset && o->tokens >= o->sequence_length), PN_USAGE,
             "%s: spread needs tokens of at least one sequence_length, and no offset", where);
    if (!o->skill) return PN_OK;
    const pn_skill_type *type = pn_skill_find(o->skill);
    PN_CHECK(type, PN_USAGE, "%s: no skill named %s; see `postnas list skills`", where, o->skill);
    _Alignas(8) unsigned char options[PN_SKILL_OPTIONS_BYTES] = { 0 };
    PN_TRY(pn_config_read(c, section, type->options, options));
    PN_TRY(pn_skill_create(type, options, where, &spec->skill));
    return PN_OK;
}

pn_status pn_task_specs_read(pn_config *c, const char *section, pn_task_spec **specs, int *n) {
    PN_TRY(pn_config_list_size(c, section, n));
    PN_CHECK(*n > 0, PN_USAGE, "%s: at least one task is needed", pn_config_where(c, section));
    *specs = calloc((size_t)*n, sizeof **specs);
    PN_CHECK(*specs, PN_MEMORY, "out of memory");
    for (int i = 0; i < *n; i++) {
        char element[128];
        snprintf(element, sizeof element, "%s.%d", section, i);
        pn_status s = read_spec(c, element, &(*specs)[i]);
        for (int k = 0; !s && k < i; k++)
            if (!strcmp((*specs)[k].options.name, (*specs)[i].options.name))
                s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: two tasks are named %s", pn_config_where(c, element),
                               (*specs)[i].options.name);
        if (s) {
            pn_task_specs_free(specs, *n);
            return s;
        }
    }
    return PN_OK;
}

void pn_task_specs_free(pn_task_spec **specs, int n) {
    for (int i = 0; *specs && i < n; i++) pn_skill_destroy(&(*specs)[i].skill);
    free(*specs);
    *specs = NULL;
}

/* ---- preparation ---- */

/* Documents being packed into the next batch. */
typedef struct packer {
    pn_task *task;
    int32_t *ids;
    int64_t *offset, n_docs, n_tokens, cap_tokens, cap_docs;
    int64_t *row, n_rows, cap_rows;
    int32_t *target;
    pn_span *span;
    int64_t n_spans, cap_spans;
} packer;

/* Grows an array to hold n elements. */
static pn_status reserve(void *array, int64_t *cap, int64_t n, size_t size) {
    if (n <= *cap) return PN_OK;
    int64_t grown = *cap ? *cap : 1024;
    while (grown < n) grown *= 2;
    void *p = realloc(*(void **)array, (size_t)grown * size);
    PN_CHECK(p, PN_MEMORY, "out of memory");
    *(void **)array = p;
    *cap = grown;
    return PN_OK;
}

static pn_status flush(packer *p) {
    if (!p->n_docs) return PN_OK;
    pn_task *task = p->task;
    pn_task_batch *grown = realloc(task->batch, (size_t)(task->n_batches + 1) * sizeof *grown);
    PN_CHECK(grown, PN_MEMORY, "out of memory");
    task->batch = grown;
    pn_task_batch *b = &task->batch[task->n_batches++];
    *b = (pn_task_batch){ .n_rows = p->n_rows, .n_spans = p->n_spans };
    PN_TRY(pn_batch_from_ids(p->ids, p->offset, p->n_docs, &b->tokens));
    task->n_tokens += p->n_tokens;
    if (task->kind == PN_TASK_RECALL || task->kind == PN_TASK_CHOICE) {
        b->row = p->row;
        b->target = p->target;
        b->span = p->span;
        p->row = NULL, p->target = NULL, p->span = NULL;
    }
    p->n_docs = p->n_tokens = p->n_rows = p->n_spans = p->cap_rows = p->cap_spans = 0;
    return PN_OK;
}

/* Appends one document; *first receives the batch position of its first token. */
static pn_status add_doc(packer *p, const int32_t *ids, int64_t n, int64_t *first) {
    if (p->n_tokens && p->n_tokens + n > BATCH_TOKENS) PN_TRY(flush(p));
    PN_TRY(reserve(&p->ids, &p->cap_tokens, p->n_tokens + n, sizeof *p->ids));
    PN_TRY(reserve(&p->offset, &p->cap_docs, p->n_docs + 2, sizeof *p->offset));
    memcpy(p->ids + p->n_tokens, ids, (size_t)n * sizeof *ids);
    *first = p->n_tokens;
    p->offset[p->n_docs] = p->n_tokens;
    p->n_tokens += n;
    p->offset[++p->n_docs] = p->n_tokens;
    return PN_OK;
}

/* Scores tokens begin .. end of the document that starts at `first`: token i is predicted by row i - 1. */
static pn_status add_span(packer *p, int64_t first, int64_t begin, int64_t end, const pn_span *like) {
    int64_t cap = p->cap_rows;
    PN_TRY(reserve(&p->row, &cap, p->n_rows + end - begin, sizeof *p->row));
    cap = p->cap_rows;
    PN_TRY(reserve(&p->target, &cap, p->n_rows + end - begin, sizeof *p->target));
    p->cap_rows = cap;
    PN_TRY(reserve(&p->span, &p->cap_spans, p->n_spans + 1, sizeof *p->span));
    pn_span *s = &p->span[p->n_spans++];
    *s = *like;
    s->first = p->n_rows;
    s->n = end - begin;
    for (int64_t i = begin; i < end; i++) {
        p->row[p->n_rows] = first + i - 1;
        p->target[p->n_rows++] = p->ids[first + i];
    }
    return PN_OK;
}

static pn_status add_recall(packer *p, const pn_token_doc *doc) {
    int64_t first;
    PN_TRY(add_doc(p, doc->tokens, doc->n, &first));
    for (int64_t i = 0; i < doc->n_answers; i++) {
        const pn_answer *a = &doc->answers[i];
        if (a->begin < 1) continue;
        const pn_span like = { .distance = a->distance, .chance = a->chance };
        PN_TRY(add_span(p, first, a->begin, a->end, &like));
        p->task->n_questions++;
    }
    return PN_OK;
}

/* Every choice becomes a document of its own: what stands before the answer, then the choice. */
static pn_status add_choices(packer *p, const pn_token_doc *doc) {
    for (int64_t i = 0; i < doc->n_answers; i++) {
        const pn_answer *a = &doc->answers[i];
        if (a->choice < 0 || a->begin < 1) continue;
        for (int32_t c = 0; c < a->n_choices; c++) {
            const int64_t *at = doc->choice_begin + a->choice + c;
            int64_t n = at[1] - at[0], first;
            int32_t *ids = malloc((size_t)(a->begin + n) * sizeof *ids);
            PN_CHECK(ids, PN_MEMORY, "out of memory");
            memcpy(ids, doc->tokens, (size_t)a->begin * sizeof *ids);
            memcpy(ids + a->begin, doc->choice_tokens + at[0], (size_t)n * sizeof *ids);
            pn_status s = add_doc(p, ids, a->begin + n, &first);
            free(ids);
            PN_TRY(s);
            const pn_span like = { .group = p->task->n_questions, .gold = c == a->gold, .chance = a->chance };
            PN_TRY(add_span(p, first, a->begin, a->begin + n, &like));
        }
        p->task->n_questions++;
    }
    return PN_OK;
}

static pn_status prepare_skill(const pn_task_spec *spec, const pn_tokenizer *tokenizer, pn_split split, uint64_t seed,
                               packer *p) {
    const pn_task_options *o = &spec->options;
    pn_token_doc doc = { 0 };
    pn_status s = PN_OK;
    for (int64_t i = 0; i < o->documents && !s; i++) {
        int64_t first;
        s = pn_skill_document(spec->skill, tokenizer, pn_doc_frame_default(tokenizer), seed, split, (uint64_t)i,
                              o->document_bytes, &doc);
        if (s) break;
        if (o->kind == PN_TASK_RECALL)
            s = add_recall(p, &doc);
        else if (o->kind == PN_TASK_CHOICE)
            s = add_choices(p, &doc);
        else
            s = add_doc(p, doc.tokens, doc.n, &first);
    }
    pn_token_doc_free(&doc);
    return s;
}

/* Adds tokens begin .. begin + n of a set, its documents cut to `length`. */
static pn_status add_slice(pn_token_set *set, int64_t begin, int64_t n, int64_t length, packer *p) {
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    int64_t *offsets = malloc(((size_t)n + 1) * sizeof *offsets), n_docs, first;
    pn_status s = PN_OK;
    if (!ids || !offsets) s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s) s = pn_token_set_read(set, begin, n, ids);
    if (!s) s = pn_token_set_offsets(set, begin, n, offsets, &n_docs);
    for (int64_t d = 0; !s && d < n_docs; d++)
        for (int64_t at = offsets[d]; !s && at < offsets[d + 1]; at += length)
            s = add_doc(p, ids + at, offsets[d + 1] - at < length ? offsets[d + 1] - at : length, &first);
    free(ids);
    free(offsets);
    return s;
}

/* tokens / length windows, the i-th of n beginning at i / n of the set: many texts where a slice would hold one. */
static pn_status add_windows(pn_token_set *set, int64_t tokens, int64_t length, packer *p) {
    int64_t n = tokens / length, there = pn_token_set_info(set)->n_tokens / length;
    for (int64_t i = 0; i < n; i++) PN_TRY(add_slice(set, i * there / n * length, length, length, p));
    return PN_OK;
}

/* content receives what identifies the set, whose path says nothing about what is in it. */
static pn_status prepare_shards(const pn_task_options *o, const pn_tokenizer *tokenizer, const char *dir, int64_t begin,
                                int64_t tokens, bool spread, packer *p, uint64_t *content) {
    pn_token_set *set;
    PN_TRY(pn_token_set_open(dir, &set));
    pn_status s = pn_token_set_needs(set, pn_tokenizer_hash(tokenizer));
    int64_t have = pn_token_set_info(set)->n_tokens;
    *content = pn_token_set_info(set)->content_hash;
    if (!s && begin + tokens > have)
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE,
                       "task %s: tokens %" PRId64 " .. %" PRId64 " are wanted, but %s holds %" PRId64
                       "; use fewer tokens or more data",
                       o->name, begin, begin + tokens, dir, have);
    if (!s)
        s = spread ? add_windows(set, tokens, o->sequence_length, p)
                   : add_slice(set, begin, tokens, o->sequence_length, p);
    pn_token_set_close(&set);
    return s;
}

/* A task that scores nothing would give every path the same perfect number. */
static pn_status check_scored(const pn_task *t, const pn_task_options *o) {
    int64_t n_targets = 0;
    for (int i = 0; i < t->n_batches; i++) n_targets += t->batch[i].tokens.n_tokens - t->batch[i].tokens.n_docs;
    bool asks = t->kind == PN_TASK_RECALL || t->kind == PN_TASK_CHOICE;
    PN_CHECK(!asks || t->n_questions > 0, PN_USAGE,
             "task %s: documents of skill %s hold no %s; use another skill or kind, or longer documents", o->name,
             o->skill, t->kind == PN_TASK_RECALL ? "answers" : "answers with choices");
    PN_CHECK(asks || n_targets > 0, PN_USAGE, "task %s: no document has a next token; use more tokens or documents",
             o->name);
    return PN_OK;
}

pn_status pn_task_prepare(const pn_task_spec *spec, const pn_tokenizer *tokenizer, pn_split split, int instance,
                          pn_task **out) {
    const pn_task_options *o = &spec->options;
    PN_ASSERT(split == PN_SPLIT_HELDOUT || instance == 0);
    pn_task *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    snprintf(t->name, sizeof t->name, "%s", o->name);
    t->kind = (pn_task_kind)o->kind;
    packer p = { .task = t };
    pn_status s;
    uint64_t words = pn_tokenizer_hash(tokenizer);
    if (spec->skill) {
        uint64_t seed = (uint64_t)o->seed + (uint64_t)instance;
        snprintf(t->key, sizeof t->key,
                 "%s kind=%s skill=%s split=%s seed=%" PRIu64 " documents=%" PRId64 "x%" PRId64 " options=%016" PRIx64
                 " tokenizer=%016" PRIx64,
                 o->name, kinds[o->kind], o->skill, pn_split_names[split], seed, o->documents, o->document_bytes,
                 pn_skill_hash(spec->skill), words);
        s = prepare_skill(spec, tokenizer, split, seed, &p);
    } else {
        bool heldout = split == PN_SPLIT_HELDOUT, apart = heldout && o->heldout_shards;
        const char *dir = apart ? o->heldout_shards : o->shards;
        int64_t tokens = heldout && o->heldout_tokens ? o->heldout_tokens : o->tokens;
        /* without shards of their own, held-out slices follow the search slice */
        int64_t begin = o->offset + (heldout && !apart ? o->tokens : 0) + instance * tokens;
        bool spread = o->spread && !heldout;
        uint64_t content = 0;
        s = prepare_shards(o, tokenizer, dir, begin, tokens, spread, &p, &content);
        snprintf(t->key, sizeof t->key,
                 "%s kind=%s shards=%016" PRIx64 " tokens=%" PRId64 "+%" PRId64 " length=%" PRId64
                 "%s tokenizer=%016" PRIx64,
                 o->name, kinds[o->kind], content, begin, tokens, o->sequence_length, spread ? " spread" : "", words);
    }
    if (!s) s = flush(&p);
    if (!s) s = check_scored(t, o);
    free(p.ids);
    free(p.offset);
    free(p.row);
    free(p.target);
    free(p.span);
    if (s) {
        pn_task_destroy(&t);
        return s;
    }
    *out = t;
    return PN_OK;
}

void pn_task_destroy(pn_task **tp) {
    if (!tp || !*tp) return;
    pn_task *t = *tp;
    for (int i = 0; i < t->n_batches; i++) {
        pn_batch_free(&t->batch[i].tokens);
        free(t->batch[i].row);
        free(t->batch[i].target);
        free(t->batch[i].span);
        pn_tensor_release(&t->batch[i].teacher);
        pn_tensor_release(&t->batch[i].teacher_head);
    }
    free(t->batch);
    free(t);
    *tp = NULL;
}
