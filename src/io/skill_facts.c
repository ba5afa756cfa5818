/* facts: what a world's names have for attributes, in several phrasings; the choices of each answer are listed.
 *
 * The world is drawn from `world` alone, so training and held-out documents speak of the same facts. Of every fact one
 * phrasing is kept out of training; search and held-out documents ask with that one: they measure whether the fact was
 * learned, not the sentence. */
#include <stdio.h>
#include <string.h>

#include "skills.h"

enum { NAMES_MAX = 512, NAME_LETTERS = 4, ATTRIBUTES = 6, VALUES = 8 };

typedef struct facts_options {
    int64_t names, attributes, choices, phrasings, world;
} facts_options;

typedef struct facts_data {
    char name[NAMES_MAX][NAME_LETTERS + 1];
    uint8_t value[NAMES_MAX][ATTRIBUTES];    /* index into values */
    uint8_t kept_out[NAMES_MAX][ATTRIBUTES]; /* the phrasing that training never uses */
} facts_data;

static const char *const attributes[ATTRIBUTES] = { "color", "food", "home", "tool", "pet", "sport" };
static const char *const values[ATTRIBUTES][VALUES] = {
    { "red", "blue", "green", "gray", "pink", "black", "white", "gold" },
    { "rice", "bread", "fish", "corn", "soup", "plums", "nuts", "eggs" },
    { "rome", "oslo", "cairo", "lima", "paris", "delhi", "tokyo", "quito" },
    { "saw", "hammer", "pen", "brush", "knife", "rope", "shovel", "needle" },
    { "dog", "cat", "goat", "parrot", "snake", "mouse", "horse", "turtle" },
    { "chess", "tennis", "rowing", "soccer", "boxing", "golf", "skiing", "judo" },
};

/* What stands around the name and the attribute, before " <value>\n". */
typedef struct phrasing {
    const char *before, *between, *after;
    bool name_first;
} phrasing;
static const phrasing phrasings[] = {
    { "", " ", "", true },
    { "the ", " of ", " is", false },
    { "", " of ", "?", false },
    { "Q what ", " has ", " A", false },
};
enum { PHRASINGS = sizeof phrasings / sizeof *phrasings, QUESTION_MAX = 64 };

static const pn_option facts_table[] = {
    PN_OPT_INT(facts_options, names, 48, 2, NAMES_MAX, "names in the world"),
    PN_OPT_INT(facts_options, attributes, 3, 1, ATTRIBUTES, "attributes of each name"),
    PN_OPT_INT(facts_options, choices, 8, 2, VALUES, "answers listed for a question, the right one among them"),
    PN_OPT_INT(facts_options, phrasings, 4, 1, PHRASINGS, "ways to say a fact; one of them is for held-out documents"),
    PN_OPT_INT(facts_options, world, 12345, 0, 9e15, "seed of the world, the same for training and held-out documents"),
    PN_OPT_END,
};

static const facts_options *options_of(const pn_skill *s) {
    return (const facts_options *)(const void *)s->options;
}

static void draw_name(pn_rng *rng, char *out) {
    static const char consonants[] = "bdfgklmnprstvz", vowels[] = "aeiou";
    for (int i = 0; i < NAME_LETTERS; i++)
        out[i] =
            i % 2 ? vowels[pn_rng_below(rng, sizeof vowels - 1)] : consonants[pn_rng_below(rng, sizeof consonants - 1)];
    out[NAME_LETTERS] = '\0';
}

static pn_status facts_setup(pn_skill *self, const char *where) {
    (void)where;
    const facts_options *o = options_of(self);
    facts_data *d = self->data;
    pn_rng rng;
    pn_rng_stream((uint64_t)o->world, "skill/facts/world", 0, &rng);
    for (int64_t i = 0; i < o->names; i++) {
        bool known;
        do {
            draw_name(&rng, d->name[i]);
            known = false;
            for (int64_t k = 0; k < i && !known; k++) known = strcmp(d->name[k], d->name[i]) == 0;
        } while (known);
        for (int a = 0; a < ATTRIBUTES; a++) {
            d->value[i][a] = (uint8_t)pn_rng_below(&rng, VALUES);
            d->kept_out[i][a] = (uint8_t)pn_rng_below(&rng, (uint64_t)o->phrasings);
        }
    }
    return PN_OK;
}

/* One fact at its longest: "bado color parrot\n", or "Q what color has bado A parrot\n". */
static int64_t facts_least_bytes(const pn_skill *self) {
    size_t longest = 0, word = 0, value = 0;
    for (int64_t k = 0; k < options_of(self)->phrasings; k++) {
        const phrasing *p = &phrasings[k];
        const size_t n = strlen(p->before) + strlen(p->between) + strlen(p->after);
        if (n > longest) longest = n;
    }
    for (int64_t a = 0; a < options_of(self)->attributes; a++) {
        if (strlen(attributes[a]) > word) word = strlen(attributes[a]);
        for (int v = 0; v < VALUES; v++)
            if (strlen(values[a][v]) > value) value = strlen(values[a][v]);
    }
    return (int64_t)(longest + NAME_LETTERS + word + strlen(" ") + value + strlen("\n"));
}

static int64_t draw_phrasing(const facts_options *o, pn_split split, pn_rng *rng, int64_t kept_out) {
    if (o->phrasings == 1) return 0;
    if (split != PN_SPLIT_TRAIN) return kept_out;
    return (kept_out + 1 + (int64_t)pn_rng_below(rng, (uint64_t)o->phrasings - 1)) % o->phrasings;
}

/* The right value among n - 1 others, all different, in random order. */
static void put_choices(pn_rng *rng, int a, int gold, int64_t n, pn_skill_doc *out) {
    int order[VALUES];
    for (int i = 0; i < VALUES; i++) order[i] = i;
    order[0] = gold;
    order[gold] = 0;
    for (int64_t i = 1; i < n; i++) { /* which others */
        int64_t k = i + (int64_t)pn_rng_below(rng, (uint64_t)(VALUES - i));
        int other = order[k];
        order[k] = order[i];
        order[i] = other;
    }
    int64_t at = (int64_t)pn_rng_below(rng, (uint64_t)n); /* where the right one stands */
    order[0] = order[at];
    order[at] = gold;
    for (int64_t i = 0; i < n; i++) {
        char text[16];
        snprintf(text, sizeof text, " %s", values[a][order[i]]);
        pn_skill_put_choice(out, text, order[i] == gold);
    }
}

static void put_fact(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    const facts_options *o = options_of(self);
    const facts_data *d = self->data;
    const int64_t i = (int64_t)pn_rng_below(rng, (uint64_t)o->names);
    const int a = (int)pn_rng_below(rng, (uint64_t)o->attributes), gold = d->value[i][a];
    const phrasing *p = &phrasings[draw_phrasing(o, split, rng, d->kept_out[i][a])];
    char question[QUESTION_MAX], answer[16];
    snprintf(question, sizeof question, "%s%s%s%s%s", p->before, p->name_first ? d->name[i] : attributes[a], p->between,
             p->name_first ? attributes[a] : d->name[i], p->after);
    snprintf(answer, sizeof answer, " %s", values[a][gold]);
    const int64_t before = out->n_answers;
    pn_skill_puts(out, question, PN_CLASS_TEXT);
    pn_skill_put_answer(out, answer, (int64_t)strlen(answer), -1, 0);
    if (out->n_answers > before) put_choices(rng, a, gold, o->choices, out);
    pn_skill_puts(out, "\n", PN_CLASS_TEXT);
}

static void facts_write(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    while (pn_skill_room(out) > 0 && !out->out_of_memory) put_fact(self, split, rng, out);
}

const pn_skill_type pn_skill_facts = {
    .name = "facts",
    .summary = "facts of a made-up world, asked for in a phrasing not trained on; multiple choice",
    .options = facts_table,
    .options_bytes = sizeof(facts_options),
    .data_bytes = sizeof(facts_data),
    .setup = facts_setup,
    .least_bytes = facts_least_bytes,
    .write = facts_write,
};
