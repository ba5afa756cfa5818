/* recall: associative recall (Arora et al., "Zoology", arXiv 2312.04927). Pairs of a key and a value, then keys again:
 * what follows a key the second time is decided by the first. Two kinds of documents:
 *
 *     block     kVaMqT(the old cat sees a river.)qTkV(...)aM     all pairs, filler, each key asked for once, any order
 *     stream    kVkVaMkVaMqTaMqT...                              a new pair or a known key, at random, to the end
 *
 * (here with marks and separator empty; with "pair_mark" ":" and "query_mark" "?" it reads k:V ... k?V). Keys of a
 * document differ; values are drawn with replacement, so knowing the other pairs says nothing about a value, and
 * guessing has the chance 1 / |value_alphabet|^value_length. The answer's distance runs from where the value stood
 * last. */
#include <stdlib.h>
#include <string.h>

#include "skills.h"

enum { KEY_MAX = 16, VALUE_MAX = 16, MARK_MAX = 16, PAIRS_MAX = 4096 };

enum { FILLER_TEXT, FILLER_NOISE };
static const char *const fillers[] = { [FILLER_TEXT] = "text", [FILLER_NOISE] = "noise", NULL };

typedef struct recall_options {
    int64_t pairs_min, pairs_max, key_length, value_length, queries, gap_max, filler;
    double gap_share, stream_share, new_share, filler_share;
    const char *key_alphabet, *value_alphabet, *pair_mark, *query_mark, *separator, *filler_open, *filler_close;
    pn_int_list distances;
} recall_options;

typedef struct recall_data {
    double n_values;     /* |value_alphabet|^value_length */
    int64_t pair, query; /* bytes of one */
    int64_t filler_min;  /* bytes of the shortest filler that is more than dots */
} recall_data;

static const pn_option recall_table[] = {
    PN_OPT_INT(recall_options, pairs_min, 2, 1, PAIRS_MAX, "fewest pairs in a document"),
    PN_OPT_INT(recall_options, pairs_max, 24, 1, PAIRS_MAX, "most pairs; each document draws between the two"),
    PN_OPT_INT(recall_options, key_length, 1, 1, KEY_MAX, "letters of a key"),
    PN_OPT_STRING(recall_options, key_alphabet, "abcdefghijklmnopqrstuvwxyz", "letters that keys are made of"),
    PN_OPT_INT(recall_options, value_length, 1, 1, VALUE_MAX, "letters of a value"),
    PN_OPT_STRING(recall_options, value_alphabet, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "letters that values are made of"),
    PN_OPT_STRING(recall_options, pair_mark, "", "between the key and the value of a pair"),
    PN_OPT_STRING(recall_options, query_mark, "", "between the key of a query and its answer"),
    PN_OPT_STRING(recall_options, separator, "", "after each pair and each query"),
    PN_OPT_FLOAT(recall_options, stream_share, 0, 0, 1, "share of documents that are streams; the others are blocks"),
    PN_OPT_FLOAT(recall_options, new_share, 0.4, 0, 1, "stream: how often a new pair comes where one is left"),
    PN_OPT_FLOAT(recall_options, filler_share, 0.08, 0, 0.9,
                 "stream: how often filler comes instead of a pair or query"),
    PN_OPT_INT(recall_options, queries, 0, 0, PAIRS_MAX, "block: queries in a document; 0: every pair once"),
    PN_OPT_INTS(recall_options, distances, NULL, 1, 1 << 30,
                "block: bytes from a value to the first query's answer; each document draws one; none: any",
                .example = "[64, 128]"),
    PN_OPT_FLOAT(recall_options, gap_share, 0.25, 0, 1, "block: share of the queries that filler stands before"),
    PN_OPT_ENUM(recall_options, filler, "text", fillers, "what fills the rest: the text skill, or letters at random"),
    PN_OPT_STRING(recall_options, filler_open, "(", "before filler of the text skill"),
    PN_OPT_STRING(recall_options, filler_close, ")", "after it"),
    PN_OPT_INT(recall_options, gap_max, 24, 1, 1 << 20,
               "most bytes of filler at a time, but for a block's one long gap"),
    PN_OPT_END,
};

static const recall_options *options_of(const pn_skill *s) {
    return (const recall_options *)(const void *)s->options;
}

/* ---- options ---- */

static pn_status check_letters(const char *where, const char *key, const char *letters, int64_t least, int64_t most) {
    const int64_t n = (int64_t)strlen(letters);
    PN_CHECK(n >= least && n <= most, PN_USAGE, "%s: %s has %lld letters; it must have %lld to %lld", where, key,
             (long long)n, (long long)least, (long long)most);
    for (int64_t i = 0; i < n; i++) {
        PN_CHECK((unsigned char)letters[i] < 0x80, PN_USAGE, "%s: %s must be ASCII", where, key);
        PN_CHECK(least < 2 || !strchr(letters + i + 1, letters[i]), PN_USAGE, "%s: %s has the letter '%c' twice", where,
                 key, letters[i]);
    }
    return PN_OK;
}

static double power(double base, int64_t n) {
    double p = 1;
    while (n-- > 0) p *= base;
    return p;
}

static pn_status recall_setup(pn_skill *self, const char *where) {
    const recall_options *o = options_of(self);
    recall_data *d = self->data;
    PN_TRY(check_letters(where, "key_alphabet", o->key_alphabet, 2, 128));
    PN_TRY(check_letters(where, "value_alphabet", o->value_alphabet, 2, 128));
    PN_TRY(check_letters(where, "pair_mark", o->pair_mark, 0, MARK_MAX));
    PN_TRY(check_letters(where, "query_mark", o->query_mark, 0, MARK_MAX));
    PN_TRY(check_letters(where, "separator", o->separator, 0, MARK_MAX));
    PN_TRY(check_letters(where, "filler_open", o->filler_open, 0, MARK_MAX));
    PN_TRY(check_letters(where, "filler_close", o->filler_close, 0, MARK_MAX));
    PN_CHECK(o->pairs_min <= o->pairs_max, PN_USAGE, "%s: pairs_min %lld is more than pairs_max %lld", where,
             (long long)o->pairs_min, (long long)o->pairs_max);
    PN_CHECK(o->queries <= o->pairs_min, PN_USAGE,
             "%s: queries %lld is more than pairs_min %lld; a pair is asked for once", where, (long long)o->queries,
             (long long)o->pairs_min);
    const double n_keys = power((double)strlen(o->key_alphabet), o->key_length);
    PN_CHECK(n_keys >= (double)o->pairs_max, PN_USAGE,
             "%s: only %.0f different keys for %lld pairs; raise key_length, or give key_alphabet more letters", where,
             n_keys, (long long)o->pairs_max);
    d->n_values = power((double)strlen(o->value_alphabet), o->value_length);
    const int64_t both = o->key_length + o->value_length + (int64_t)strlen(o->separator);
    d->pair = both + (int64_t)strlen(o->pair_mark);
    d->query = both + (int64_t)strlen(o->query_mark);
    d->filler_min = o->filler == FILLER_NOISE ? 1 : 2 + (int64_t)(strlen(o->filler_open) + strlen(o->filler_close));
    return PN_OK;
}

static int64_t queries_for(const recall_options *o, int64_t pairs) {
    return o->queries ? o->queries : pairs;
}

static int64_t bytes_for(const pn_skill *self, int64_t pairs) {
    const recall_data *d = self->data;
    return pairs * d->pair + queries_for(options_of(self), pairs) * d->query;
}

static int64_t recall_least_bytes(const pn_skill *self) {
    return bytes_for(self, options_of(self)->pairs_min);
}

/* ---- documents ---- */

typedef struct pair {
    char key[KEY_MAX], value[VALUE_MAX];
    int64_t stated; /* where its value stands */
} pair;

static void draw(pn_rng *rng, const char *alphabet, int64_t n, char *out) {
    const uint64_t letters = strlen(alphabet);
    for (int64_t i = 0; i < n; i++) out[i] = alphabet[pn_rng_below(rng, letters)];
}

static void draw_pairs(const recall_options *o, pn_rng *rng, pair *pairs, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        bool known;
        do {
            draw(rng, o->key_alphabet, o->key_length, pairs[i].key);
            known = false;
            for (int64_t k = 0; k < i && !known; k++)
                known = memcmp(pairs[k].key, pairs[i].key, (size_t)o->key_length) == 0;
        } while (known);
        draw(rng, o->value_alphabet, o->value_length, pairs[i].value);
    }
}

/* n bytes of filler: bracketed text, or dots where that is too short for it. */
static void put_filler(const pn_skill *self, pn_rng *rng, int64_t n, pn_skill_doc *out) {
    const recall_options *o = options_of(self);
    const recall_data *d = self->data;
    if (o->filler == FILLER_TEXT && n >= d->filler_min) {
        pn_skill_puts(out, o->filler_open, PN_CLASS_TEXT);
        pn_skill_put_filler(out, rng, n - d->filler_min + 2);
        pn_skill_puts(out, o->filler_close, PN_CLASS_TEXT);
        return;
    }
    for (; n > 0; n--) {
        char letter = '.';
        if (o->filler == FILLER_NOISE) draw(rng, o->key_alphabet, 1, &letter);
        pn_skill_put(out, &letter, 1, o->filler == FILLER_NOISE ? PN_CLASS_NOISE : PN_CLASS_TEXT);
    }
}

/* Between filler_min and gap_max bytes, cut to `most`; 0 where even filler_min is too long. */
static int64_t draw_filler(const pn_skill *self, pn_rng *rng, int64_t most) {
    const int64_t least = ((const recall_data *)self->data)->filler_min, cap = options_of(self)->gap_max;
    if (most < least) return 0;
    const int64_t n = cap > least ? least + (int64_t)pn_rng_below(rng, (uint64_t)(cap - least) + 1) : least;
    return n < most ? n : most;
}

static void put_pair(const recall_options *o, pair *p, pn_skill_doc *out) {
    pn_skill_put(out, p->key, o->key_length, PN_CLASS_NOISE);
    pn_skill_puts(out, o->pair_mark, PN_CLASS_TEXT);
    p->stated = out->n;
    pn_skill_put(out, p->value, o->value_length, PN_CLASS_NOISE);
    pn_skill_puts(out, o->separator, PN_CLASS_TEXT);
}

static void put_query(const pn_skill *self, pair *p, pn_skill_doc *out) {
    const recall_options *o = options_of(self);
    pn_skill_put(out, p->key, o->key_length, PN_CLASS_NOISE);
    pn_skill_puts(out, o->query_mark, PN_CLASS_TEXT);
    const int64_t begin = out->n;
    pn_skill_put_answer(out, p->value, o->value_length, p->stated, ((const recall_data *)self->data)->n_values);
    p->stated = begin;
    pn_skill_puts(out, o->separator, PN_CLASS_TEXT);
}

/* ---- block ---- */

static void shuffle(pn_rng *rng, pair *pairs, int64_t n) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)pn_rng_below(rng, (uint64_t)i + 1);
        pair other = pairs[k];
        pairs[k] = pairs[i];
        pairs[i] = other;
    }
}

/* Distance of the answer to a query for `p` that follows the pairs at once. */
static int64_t least_distance(const recall_options *o, const pair *p, const pn_skill_doc *out) {
    return out->n + o->key_length + (int64_t)strlen(o->query_mark) - p->stated;
}

/* Bytes of filler between the pairs and the first query, out of `slack`. Where distances are asked for: draws one, and
 * moves a pair to the front that can be asked for at that distance; if there is none, as near as the front one can be.
 */
static int64_t draw_gap(const pn_skill *self, pn_rng *rng, pair *pairs, int64_t n, const pn_skill_doc *out,
                        int64_t slack) {
    const recall_options *o = options_of(self);
    if (o->distances.n == 0) {
        const int64_t any = (int64_t)pn_rng_below(rng, (uint64_t)slack + 1);
        return any < ((const recall_data *)self->data)->filler_min ? 0 : any;
    }
    const int64_t want = o->distances.item[pn_rng_below(rng, (uint64_t)o->distances.n)];
    for (int64_t i = 0; i < n; i++) {
        const int64_t gap = want - least_distance(o, &pairs[i], out);
        if (gap < 0 || gap > slack) continue;
        const pair other = pairs[0];
        pairs[0] = pairs[i];
        pairs[i] = other;
        return gap;
    }
    const int64_t gap = want - least_distance(o, &pairs[0], out);
    return gap < 0 ? 0 : slack;
}

static void put_queries(const pn_skill *self, pn_rng *rng, pair *pairs, int64_t n, int64_t slack, pn_skill_doc *out) {
    for (int64_t i = 0; i < n; i++) {
        /* No filler right before the first query: its distance is set already. */
        if (i > 0 && pn_rng_uniform(rng) < options_of(self)->gap_share) {
            const int64_t now = draw_filler(self, rng, slack);
            put_filler(self, rng, now, out);
            slack -= now;
        }
        put_query(self, &pairs[i], out);
    }
}

static void write_block(const pn_skill *self, pn_rng *rng, pair *pairs, int64_t n, pn_skill_doc *out) {
    const recall_options *o = options_of(self);
    for (int64_t i = 0; i < n; i++) put_pair(o, &pairs[i], out);
    shuffle(rng, pairs, n);
    const int64_t slack = out->room - bytes_for(self, n), gap = draw_gap(self, rng, pairs, n, out, slack);
    put_filler(self, rng, gap, out);
    put_queries(self, rng, pairs, queries_for(o, n), slack - gap, out);
}

/* ---- stream ---- */

static void write_stream(const pn_skill *self, pn_rng *rng, pair *pairs, int64_t n, pn_skill_doc *out) {
    const recall_options *o = options_of(self);
    const recall_data *d = self->data;
    const int64_t longer = d->pair > d->query ? d->pair : d->query;
    int64_t known = 0;
    while (pn_skill_room(out) >= longer) {
        if (pn_rng_uniform(rng) < o->filler_share && pn_skill_room(out) >= d->filler_min)
            put_filler(self, rng, draw_filler(self, rng, pn_skill_room(out)), out);
        else if (known == 0 || (known < n && pn_rng_uniform(rng) < o->new_share))
            put_pair(o, &pairs[known++], out);
        else
            put_query(self, &pairs[pn_rng_below(rng, (uint64_t)known)], out);
        if (out->out_of_memory) return;
    }
}

/* ---- both ---- */

static void recall_write(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    (void)split;
    const recall_options *o = options_of(self);
    int64_t most = o->pairs_max; /* pairs that fit: least_bytes says that pairs_min do */
    while (most > o->pairs_min && bytes_for(self, most) > out->room) most--;
    const int64_t n = o->pairs_min + (int64_t)pn_rng_below(rng, (uint64_t)(most - o->pairs_min) + 1);
    pair *pairs = malloc((size_t)n * sizeof *pairs);
    if (!pairs) {
        out->out_of_memory = true;
        return;
    }
    draw_pairs(o, rng, pairs, n);
    if (pn_rng_uniform(rng) < o->stream_share)
        write_stream(self, rng, pairs, n, out);
    else
        write_block(self, rng, pairs, n, out);
    put_filler(self, rng, pn_skill_room(out), out);
    free(pairs);
}

const pn_skill_type pn_skill_recall = {
    .name = "recall",
    .summary = "key-value pairs, filler, then keys asked for",
    .options = recall_table,
    .options_bytes = sizeof(recall_options),
    .data_bytes = sizeof(recall_data),
    .setup = recall_setup,
    .least_bytes = recall_least_bytes,
    .write = recall_write,
};
