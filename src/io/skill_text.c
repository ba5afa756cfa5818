/* text: English from a small grammar, for plain language modelling and as filler between the parts of other skills.
 *
 *     sentence = phrase verb phrase [preposition phrase] "."      phrase = determiner [adjective] noun */
#include "skills.h"

#include <string.h>

static const char *const determiners[] = { "the", "a", "one", "this", "every" };
static const char *const adjectives[] = { "small", "old",   "red",   "quiet", "bright",
                                          "cold",  "happy", "green", "heavy", "young" };
static const char *const nouns[] = { "cat",   "river", "house", "stone",  "bird",   "king",  "road", "tree",
                                     "child", "boat",  "door",  "garden", "letter", "horse", "lamp", "hill" };
static const char *const verbs[] = { "sees", "finds", "follows", "leaves", "likes", "holds", "meets", "hears" };
static const char *const prepositions[] = { "near", "under", "behind", "with", "over" };

#define PICK(rng, list) (list)[pn_rng_below(rng, sizeof(list) / sizeof *(list))]

/* A sentence of at most 5 + 4 phrases' words; the longest is far below the room. */
enum { SENTENCE_MAX = 160 };

static void add_word(char *sentence, const char *word) {
    if (*sentence) strcat(sentence, " ");
    strcat(sentence, word);
}

static void add_phrase(char *sentence, pn_rng *rng) {
    add_word(sentence, PICK(rng, determiners));
    if (pn_rng_below(rng, 2)) add_word(sentence, PICK(rng, adjectives));
    add_word(sentence, PICK(rng, nouns));
}

static void write_sentence(char *sentence, pn_rng *rng) {
    *sentence = '\0';
    add_phrase(sentence, rng);
    add_word(sentence, PICK(rng, verbs));
    add_phrase(sentence, rng);
    if (pn_rng_below(rng, 2)) {
        add_word(sentence, PICK(rng, prepositions));
        add_phrase(sentence, rng);
    }
    strcat(sentence, ". ");
}

void pn_skill_put_filler(pn_skill_doc *t, pn_rng *rng, int64_t n) {
    char sentence[SENTENCE_MAX];
    while (n > 0) {
        write_sentence(sentence, rng);
        int64_t length = (int64_t)strlen(sentence), now = length < n ? length : n;
        pn_skill_put(t, sentence, now, PN_CLASS_TEXT);
        n -= now;
    }
}

static int64_t text_least_bytes(const pn_skill *self) {
    (void)self;
    return 16; /* fewer would leave too few different documents */
}

static void text_write(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    (void)self, (void)split;
    pn_skill_put_filler(out, rng, pn_skill_room(out));
}

static const pn_option text_options[] = { PN_OPT_END };

const pn_skill_type pn_skill_text = {
    .name = "text",
    .summary = "English from a small grammar; no answers",
    .options = text_options,
    .least_bytes = text_least_bytes,
    .write = text_write,
};
