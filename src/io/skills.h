/* Skills: generators of documents with known answers, to train and measure what a model can do without any data set.
 *
 * A skill is a const table (skill_<name>.c, one row in skills.def). It writes text, and says which bytes are noise,
 * which are ordinary, and which are an answer; the text is then encoded with any tokenizer, piece by piece where an
 * answer or what states it begins or ends, so that an answer is whole tokens (with a byte-level tokenizer, exactly its
 * bytes).
 *
 * Document i of a split depends on (seed, skill, options, split, i) alone. Training, search and held-out documents are
 * apart by construction: the hash of its text decides which split a document may be in (train 14, search 1, held-out 1
 * of 16), and a generator draws again until it has one of the split asked for. */
#ifndef PN_IO_SKILLS_H
#define PN_IO_SKILLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"
#include "rng.h"
#include "token_doc.h"
#include "tokenizer.h"

typedef enum pn_split { PN_SPLIT_TRAIN, PN_SPLIT_SEARCH, PN_SPLIT_HELDOUT, PN_SPLITS } pn_split;
extern const char *const pn_split_names[]; /* "train", "search", "heldout", NULL */

/* The text of one document as a skill writes it. The functions below add to it; running out of memory is remembered and
 * reported by pn_skill_document, so that generators read as what they write. */
typedef struct pn_skill_doc {
    char *bytes;          /* (n) ASCII */
    uint8_t *byte_class;  /* (n) pn_token_class */
    int64_t n, cap, room; /* room: bytes the document may have; what is added beyond is cut off */
    struct pn_skill_answer *answers;
    int64_t n_answers, cap_answers;
    char *choices; /* (n_choices) texts, each ends in NUL */
    int64_t n_choices, choices_bytes, cap_choices;
    bool out_of_memory;
} pn_skill_doc;

typedef struct pn_skill_answer {
    int64_t begin, end;   /* bytes of the text */
    int64_t stated;       /* where the document states it; -1: nowhere */
    double n_possible;    /* how many answers are possible; 0: open */
    int64_t first_choice; /* of n_choices listed ones; -1: none */
    int32_t n_choices, gold;
} pn_skill_answer;

/* Bytes left before the document is full. */
static inline int64_t pn_skill_room(const pn_skill_doc *t) {
    return t->room - t->n;
}
void pn_skill_put(pn_skill_doc *t, const char *bytes, int64_t n, pn_token_class c);
void pn_skill_puts(pn_skill_doc *t, const char *text, pn_token_class c);
/* Adds an answer; one that is cut off by the document's end is text without being scored. */
void pn_skill_put_answer(pn_skill_doc *t, const char *bytes, int64_t n, int64_t stated, double n_possible);
/* Lists a choice for the last answer, which must be whole; gold: this one is right. */
void pn_skill_put_choice(pn_skill_doc *t, const char *choice, bool gold);

typedef struct pn_skill_type pn_skill_type;

enum { PN_SKILL_OPTIONS_BYTES = 1024 };

typedef struct pn_skill {
    const pn_skill_type *type;
    int32_t index; /* in the registry: pn_answer.skill */
    _Alignas(8) unsigned char options[PN_SKILL_OPTIONS_BYTES];
    void *data; /* type->data_bytes, owned; strings in options are borrowed from the config they were read from */
} pn_skill;

struct pn_skill_type {
    const char *name, *summary;
    const pn_option *options;
    size_t options_bytes, data_bytes;
    /* Refuses contradictions (PN_USAGE) and fills data. NULL: nothing to do. where: starts the message. */
    pn_status (*setup)(pn_skill *self, const char *where);
    /* Bytes of the shortest document that makes sense. */
    int64_t (*least_bytes)(const pn_skill *self);
    /* Fills the text's room, which is at least least_bytes. */
    void (*write)(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out);
};

#define PN_SKILL(name) extern const pn_skill_type pn_skill_##name;
#include "skills.def"
#undef PN_SKILL

const pn_skill_type *pn_skill_find(const char *name); /* NULL if unknown */
const pn_skill_type *const *pn_skill_types(int *n);   /* the registry, in skills.def order */
const char *const *pn_skill_names(int *n);            /* their names, in that order; what pn_answer.skill counts */

/* options: the type's options struct, copied; NULL: defaults. where: starts messages ("a.yaml:3: mixture.0"). */
pn_status pn_skill_create(const pn_skill_type *type, const void *options, const char *where, pn_skill **out);
void pn_skill_destroy(pn_skill **s);
/* Of the type and every option by value: two skills of equal hash write equal documents. */
uint64_t pn_skill_hash(const pn_skill *s);

/* Ids put around every document; -1: none. */
typedef struct pn_doc_frame {
    int32_t begin, end;
} pn_doc_frame;
/* What a document begins with: BOS, or EOS where there is no BOS; nothing ends it. */
pn_doc_frame pn_doc_frame_default(const pn_tokenizer *t);
static inline int64_t pn_doc_frame_tokens(pn_doc_frame f) {
    return (f.begin >= 0) + (f.end >= 0);
}

/* Document `index` of a split: n_bytes of text, framed. Its tokens are at most n_bytes + those of the frame.
 * PN_USAGE: n_bytes below least_bytes, or the options allow too few different documents to keep the splits apart. */
pn_status pn_skill_document(const pn_skill *s, const pn_tokenizer *t, pn_doc_frame frame, uint64_t seed, pn_split split,
                            uint64_t index, int64_t n_bytes, pn_token_doc *out);
/* Its text alone, for tests and for people. The caller frees with pn_skill_text_free. */
pn_status pn_skill_write(const pn_skill *s, uint64_t seed, pn_split split, uint64_t index, int64_t n_bytes,
                         pn_skill_doc *out);
void pn_skill_doc_free(pn_skill_doc *t);

/* n bytes of English from a small grammar: what stands between the parts of other skills (skill_text.c). */
void pn_skill_put_filler(pn_skill_doc *t, pn_rng *rng, int64_t n);

#endif
