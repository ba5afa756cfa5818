/* arith: arithmetic modulo a number, "3*4=2;" or "37+85 mod 97=25;", repeated until the document is full. */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "skills.h"

enum { OPERANDS_MAX = 1000000, PROBLEMS_APART_LEAST = 1024 };

typedef struct arith_options {
    int64_t modulus, operands;
    const char *operators, *end;
    bool show_modulus, problems_apart;
} arith_options;

static const pn_option arith_table[] = {
    PN_OPT_INT(arith_options, modulus, 10, 2, OPERANDS_MAX, "results are taken modulo this"),
    PN_OPT_INT(arith_options, operands, 10, 2, OPERANDS_MAX, "operands are 0 to this - 1"),
    PN_OPT_STRING(arith_options, operators, "+-*", "which of + - * to use"),
    PN_OPT_BOOL(arith_options, show_modulus, false, "write \" mod <modulus>\" before the equals sign"),
    PN_OPT_STRING(arith_options, end, ";", "after each result"),
    PN_OPT_BOOL(arith_options, problems_apart, false,
                "search and held-out documents use problems that training never shows; needs 1024 problems or more"),
    PN_OPT_END,
};

static const arith_options *options_of(const pn_skill *s) {
    return (const arith_options *)(const void *)s->options;
}

static pn_status arith_setup(pn_skill *self, const char *where) {
    const arith_options *o = options_of(self);
    const size_t n = strlen(o->operators);
    PN_CHECK(n >= 1 && n <= 3 && strspn(o->operators, "+-*") == n, PN_USAGE,
             "%s: operators is \"%s\"; it must be some of + - *", where, o->operators);
    for (const char *c = o->end; *c; c++) PN_CHECK((unsigned char)*c < 0x80, PN_USAGE, "%s: end must be ASCII", where);
    const double problems = (double)o->operands * (double)o->operands * (double)n;
    PN_CHECK(!o->problems_apart || problems >= PROBLEMS_APART_LEAST, PN_USAGE,
             "%s: problems_apart needs at least %d problems, and there are %.0f; raise operands", where,
             PROBLEMS_APART_LEAST, problems);
    return PN_OK;
}

static int64_t digits(int64_t n) {
    return n < 10 ? 1 : 1 + digits(n / 10);
}

/* Two problems at their longest: a single one of small operands would leave too few different documents. */
static int64_t arith_least_bytes(const pn_skill *self) {
    const arith_options *o = options_of(self);
    const int64_t modulus = o->show_modulus ? (int64_t)strlen(" mod ") + digits(o->modulus) : 0;
    return 2 * (2 * digits(o->operands - 1) + (int64_t)strlen("+=") + modulus + digits(o->modulus - 1) +
                (int64_t)strlen(o->end));
}

/* As for documents (skills.h): 14 of 16 problems train, one is for search, one held out. */
static pn_split split_of(int64_t a, char op, int64_t b) {
    const int64_t problem[] = { a, op, b };
    const uint64_t h = XXH3_64bits(problem, sizeof problem) % 16;
    return h == 0 ? PN_SPLIT_HELDOUT : h == 1 ? PN_SPLIT_SEARCH : PN_SPLIT_TRAIN;
}

static int64_t result(int64_t a, char op, int64_t b, int64_t modulus) {
    const int64_t v = op == '+' ? a + b : op == '-' ? a - b : a * b;
    return (v % modulus + modulus) % modulus;
}

static void put_problem(const arith_options *o, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    int64_t a, b;
    char op;
    do {
        a = (int64_t)pn_rng_below(rng, (uint64_t)o->operands);
        b = (int64_t)pn_rng_below(rng, (uint64_t)o->operands);
        op = o->operators[pn_rng_below(rng, strlen(o->operators))];
    } while (o->problems_apart && split_of(a, op, b) != split);
    char text[64];
    snprintf(text, sizeof text, "%lld%c%lld", (long long)a, op, (long long)b);
    pn_skill_puts(out, text, PN_CLASS_NOISE);
    if (o->show_modulus) {
        snprintf(text, sizeof text, " mod %lld", (long long)o->modulus);
        pn_skill_puts(out, text, PN_CLASS_TEXT);
    }
    pn_skill_puts(out, "=", PN_CLASS_TEXT);
    snprintf(text, sizeof text, "%lld", (long long)result(a, op, b, o->modulus));
    pn_skill_put_answer(out, text, (int64_t)strlen(text), -1, (double)o->modulus);
    pn_skill_puts(out, o->end, PN_CLASS_TEXT);
}

static void arith_write(const pn_skill *self, pn_split split, pn_rng *rng, pn_skill_doc *out) {
    while (pn_skill_room(out) > 0 && !out->out_of_memory) put_problem(options_of(self), split, rng, out);
}

const pn_skill_type pn_skill_arith = {
    .name = "arith",
    .summary = "arithmetic modulo a number",
    .options = arith_table,
    .options_bytes = sizeof(arith_options),
    .setup = arith_setup,
    .least_bytes = arith_least_bytes,
    .write = arith_write,
};
