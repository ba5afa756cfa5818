/* The pre-tokenizer: cuts text into the words that are merged by themselves.
 *
 * The steps of the file run one inside the other: each cuts every piece that the step before it made, and sees that
 * piece as if it were the whole text (so "end of text" in a pattern is the end of the piece). A split is "isolated":
 * matches and what lies between them are all pieces. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* What ByteLevel with use_regex stands for. */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static pn_status compile_step(const pn_tokenizer *t, pn_tok_step *step) {
    const char *pattern = step->kind == PN_TOK_BYTE_LEVEL ? gpt2_pattern : step->pattern;
    char *translated = NULL;
    PN_TRY(pn_tok_translate(t->source, pattern, step->literal, &translated));
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) {
        free(translated);
        PN_FAIL(PN_MEMORY, "no memory to compile the split pattern of %s", t->source);
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 64);
    int error = 0;
    PCRE2_SIZE offset = 0;
    step->code = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK | PCRE2_NEVER_BACKSLASH_C,
                               &error, &offset, context);
    pcre2_compile_context_free(context);
    free(translated);
    if (!step->code) {
        PCRE2_UCHAR text[160] = { 0 };
        pcre2_get_error_message(error, text, sizeof text);
        PN_FAIL(PN_FORMAT, "%s: pre_tokenizer: the pattern %.160s does not compile: %s", t->source, pattern,
                (const char *)text);
    }
    /* Without JIT (a hardened kernel may forbid it) the same pattern is interpreted: slower, same result. */
    step->jit = pcre2_jit_compile(step->code, PCRE2_JIT_COMPLETE) == 0;
    return PN_OK;
}

pn_status pn_tok_compile(pn_tokenizer *t) {
    for (int i = 0; i < t->n_steps; i++) {
        pn_tok_step *step = &t->step[i];
        if (step->kind == PN_TOK_SPLIT || (step->kind == PN_TOK_BYTE_LEVEL && step->use_regex))
            PN_TRY(compile_step(t, step));
    }
    return PN_OK;
}

static int match_at(pn_tok_encoder *e, const pn_tok_step *step, const char *text, size_t n, size_t at) {
    if (!step->jit) return pcre2_match(step->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, e->match, e->context);
    int rc = pcre2_jit_match(step->code, (PCRE2_SPTR)text, n, at, 0, e->match, e->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !e->stack) {
        e->stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, NULL);
        if (!e->stack) return PCRE2_ERROR_NOMEMORY;
        pcre2_jit_stack_assign(e->context, NULL, e->stack);
        rc = pcre2_jit_match(step->code, (PCRE2_SPTR)text, n, at, 0, e->match, e->context);
    }
    return rc;
}

static pn_status run_steps(pn_tok_encoder *e, int step, const char *text, size_t n);

static inline pn_status piece(pn_tok_encoder *e, int step, const char *text, size_t n) {
    if (n == 0) return PN_OK;
    return step + 1 == e->t->n_steps ? pn_tok_word(e, text, n) : run_steps(e, step + 1, text, n);
}

static pn_status split_regex(pn_tok_encoder *e, int step, const char *text, size_t n) {
    const pn_tok_step *s = &e->t->step[step];
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(e->match);
    size_t done = 0, at = 0;      /* pieces are out up to done; the search goes on from at */
    size_t last_end = (size_t)-1; /* of the previous match */
    while (at <= n) {
        int rc = match_at(e, s, text, n, at);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            PCRE2_UCHAR message[160] = { 0 };
            pcre2_get_error_message(rc, message, sizeof message);
            PN_FAIL(rc == PCRE2_ERROR_NOMEMORY ? PN_MEMORY : PN_FORMAT,
                    "%s: the split pattern gave up on a text of %zu bytes at byte %zu: %s", e->t->source, n, at,
                    (const char *)message);
        }
        size_t begin = span[0], end = span[1];
        if (begin == end && end == last_end) { /* an empty match where the last one ended: a character further */
            uint32_t c;
            if (at >= n) break;
            at += (size_t)pn_tok_get_utf8(text + at, &c);
            continue;
        }
        PN_CHECK(begin <= end && begin >= done, PN_FORMAT, "%s: the split pattern matches backwards", e->t->source);
        PN_TRY(piece(e, step, text + done, begin - done));
        PN_TRY(piece(e, step, text + begin, end - begin));
        done = at = last_end = end;
    }
    PN_TRY(piece(e, step, text + done, n - done));
    return PN_OK;
}

static pn_status split_digits(pn_tok_encoder *e, int step, const char *text, size_t n) {
    bool individual = e->t->step[step].individual, was_number = false;
    size_t done = 0;
    for (size_t at = 0; at < n;) {
        uint32_t c;
        size_t len = (size_t)pn_tok_get_utf8(text + at, &c);
        bool number = pn_tok_is_number(c);
        if (number != was_number || (number && individual)) {
            PN_TRY(piece(e, step, text + done, at - done));
            done = at;
        }
        was_number = number;
        at += len;
    }
    PN_TRY(piece(e, step, text + done, n - done));
    return PN_OK;
}

static pn_status run_steps(pn_tok_encoder *e, int step, const char *text, size_t n) {
    const pn_tok_step *s = &e->t->step[step];
    if (s->kind == PN_TOK_DIGITS) return split_digits(e, step, text, n);
    if (s->kind == PN_TOK_BYTE_LEVEL && s->add_prefix_space && text[0] != ' ') {
        e->prefixed.n = 0;
        PN_TRY(pn_tok_append(&e->prefixed, " ", 1));
        PN_TRY(pn_tok_append(&e->prefixed, text, n));
        text = e->prefixed.data;
        n = e->prefixed.n;
    }
    return s->code ? split_regex(e, step, text, n) : piece(e, step, text, n);
}

pn_status pn_tok_split(pn_tok_encoder *e, const char *text, size_t n) {
    if (n == 0) return PN_OK;
    PN_TRY(run_steps(e, 0, text, n));
    return PN_OK;
}
