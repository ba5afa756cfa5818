/* copy: a string of random letters, a marker, and the same string again; repeated until the document is full. */
#include <string.h>

#include "skills.h"

enum { LENGTH_MAX = 512 };

typedef struct copy_options {
    int64_t length_min, length_max;
    const char *alphabet, *mark, *end;
} copy_options;

static const pn_option copy_table[] = {
    PN_OPT_INT(copy_options, length_min, 6, 1, LENGTH_MAX, "fewest letters of a string"),
    PN_OPT_INT(copy_options, length_max, 24, 1, LENGTH_MAX, "most letters; each string draws between the two"),
    PN_OPT_STRING(copy_options, alphabet, "abcdefghijklmnopqrstuvwxyz", "letters that strings are made of"),
    PN_OPT_STRING(copy_options, mark, "|", "between a string and its copy"),
    PN_OPT_STRING(copy_options, end, "\n", "after a copy"),
    PN_OPT_END,
};

static const copy_options *options_of(const pn_skill *s) {
    return (const copy_options *)(const void *)s->options;
}

static bool is_ascii(const char *text) {
    while (*text)
        if ((unsigned char)*text++ >= 0x80) return false;
    return true;
}

static pn_status copy_setup(pn_skill *self, const char *where) {
    const copy_options *o = options_of(self);
    PN_CHECK(o->length_min <= o->length_max, PN_USAGE, "%s: length_min %lld is more than length_max %lld", where,
             (long long)o->length_min, (long long)o->length_max);
    PN_CHECK(strlen(o->alphabet) >= 2, PN_USAGE, "%s: alphabet needs at least two letters", where);
    PN_CHECK(is_ascii(o->alphabet) && is_ascii(o->mark) && is_ascii(o->end), PN_USAGE,
             "%s: alphabet, mark and end must be ASCII", where);
    return PN_OK;
}

static int64_t copy_least_bytes(const pn_skill *self) {
    const copy_options *o = options_of(self);
    return 2 * o->length_min + (int64_t)(strlen(o->mark) + strlen(o->end));
}

static void copy_write(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    (void)split;
    const copy_options *o = options_of(self);
    const uint64_t letters = strlen(o->alphabet), span = (uint64_t)(o->length_max - o->length_min) + 1;
    char string[LENGTH_MAX];
    while (pn_skill_room(out) > 0 && !out->out_of_memory) {
        const int64_t n = o->length_min + (int64_t)pn_rng_below(rng, span), stated = out->n;
        double possible = 1;
        for (int64_t i = 0; i < n; i++) {
            string[i] = o->alphabet[pn_rng_below(rng, letters)];
            possible *= (double)letters;
        }
        pn_skill_put(out, string, n, PN_CLASS_NOISE);
        pn_skill_puts(out, o->mark, PN_CLASS_NOISE); /* where a string ends is as random as the string */
        pn_skill_put_answer(out, string, n, stated, possible);
        pn_skill_puts(out, o->end, PN_CLASS_TEXT);
    }
}

const pn_skill_type pn_skill_copy = {
    .name = "copy",
    .summary = "a random string, then the same string again",
    .options = copy_table,
    .options_bytes = sizeof(copy_options),
    .setup = copy_setup,
    .least_bytes = copy_least_bytes,
    .write = copy_write,
};
