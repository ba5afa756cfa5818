/* Holds a tokenizer to the ids and texts that another implementation gave, one JSON object a line, and times it. */
#include "tokenizer_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

enum { MAX_SHOWN = 5, MAX_LINE_BYTES = 64 << 20, TIMED_BYTES = 4 << 20 };

typedef struct tally {
    int64_t n_passed, n_failed;
    pn_tok_arena ascii; /* the ASCII texts, one a line */
    FILE *out;
    const char *path;
} tally;

static double now_seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void show_ids(FILE *out, const char *name, const pn_ids *ids, int64_t from) {
    fprintf(out, "  %-8s %lld ids, from position %lld:", name, (long long)ids->n, (long long)from);
    for (int64_t i = from; i < ids->n && i < from + 12; i++) fprintf(out, " %d", ids->ids[i]);
    fprintf(out, "\n");
}

static pn_status read_expected(const tally *c, int64_t line, const json_t *row, pn_ids *ids) {
    const json_t *list = json_object_get(row, "ids");
    size_t i;
    json_t *j;
    PN_CHECK(json_is_string(json_object_get(row, "text")) && json_is_array(list), PN_FORMAT,
             "%s:%lld: a line is {\"text\": \"...\", \"ids\": [...], \"decoded\": \"...\"}", c->path, (long long)line);
    json_array_foreach(list, i, j) {
        json_int_t id = json_integer_value(j);
        PN_CHECK(json_is_integer(j) && id >= 0 && id <= INT32_MAX, PN_FORMAT, "%s:%lld: ids[%zu] is not a token id",
                 c->path, (long long)line, i);
        PN_TRY(pn_ids_push(ids, (int32_t)id));
    }
    return PN_OK;
}

static pn_status check_row(const pn_tokenizer *t, tally *c, int64_t line, const json_t *row, pn_ids *want,
                           pn_ids *got) {
    const json_t *text = json_object_get(row, "text"), *decoded = json_object_get(row, "decoded");
    const char *s = json_string_value(text);
    size_t n = json_string_length(text), n_back = 0;
    char *back = NULL, show[128];
    PN_TRY(read_expected(c, line, row, want));
    PN_TRY(pn_tokenizer_encode(t, s, n, true, got));
    bool same =
        want->n == got->n && (want->n == 0 || memcmp(want->ids, got->ids, (size_t)want->n * sizeof *want->ids) == 0);
    PN_TRY(pn_tokenizer_decode(t, got->ids, got->n, false, &back, &n_back));
    bool same_text = !json_is_string(decoded) ||
                     (n_back == json_string_length(decoded) && memcmp(back, json_string_value(decoded), n_back) == 0);
    free(back);
    if (same && same_text) {
        c->n_passed++;
    } else if (c->n_failed++ < MAX_SHOWN) {
        int64_t at = 0;
        while (at < want->n && at < got->n && want->ids[at] == got->ids[at]) at++;
        fprintf(c->out, "%s:%lld: %s differ: \"%s\"\n", c->path, (long long)line, same ? "decoded texts" : "ids",
                pn_tok_show(s, n, show));
        if (!same) {
            show_ids(c->out, "expected", want, at);
            show_ids(c->out, "got", got, at);
        }
    }
    bool ascii = n > 0;
    for (size_t i = 0; i < n && ascii; i++) ascii = (unsigned char)s[i] < 0x80;
    if (ascii) {
        PN_TRY(pn_tok_append(&c->ascii, s, n));
        PN_TRY(pn_tok_append(&c->ascii, "\n", 1));
    }
    return PN_OK;
}

static pn_status check_lines(const pn_tokenizer *t, tally *c, FILE *f) {
    char *line = NULL;
    size_t cap = 0;
    pn_ids want = { 0 }, got = { 0 };
    pn_status s = PN_OK;
    ssize_t n;
    for (int64_t i = 1; s == PN_OK && (n = getline(&line, &cap, f)) >= 0; i++) {
        if (strspn(line, " \t\r\n") == (size_t)n) continue;
        json_error_t error;
        json_t *row = n <= MAX_LINE_BYTES ? json_loadb(line, (size_t)n, JSON_ALLOW_NUL, &error) : NULL;
        want.n = got.n = 0;
        if (row)
            s = check_row(t, c, i, row, &want, &got);
        else
            s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s:%lld: not valid JSON: %s", c->path, (long long)i,
                           n <= MAX_LINE_BYTES ? error.text : "the line is too long");
        json_decref(row);
    }
    if (s == PN_OK && ferror(f)) s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot be read", c->path);
    free(line);
    pn_ids_free(&want);
    pn_ids_free(&got);
    return s;
}

/* MB/s over n bytes with one encoder, best of three; the first pass fills the word cache, if there is one. */
static pn_status time_encoder(const pn_tokenizer *t, const char *text, size_t n, bool cached, double *mb_per_second,
                              int64_t *n_ids) {
    pn_tok_encoder *e;
    pn_ids ids = { 0 };
    PN_TRY(pn_tok_encoder_create(t, cached, &e));
    e->out = &ids;
    pn_status s = PN_OK;
    *mb_per_second = 0;
    for (int i = 0; i < 3 && s == PN_OK; i++) {
        ids.n = 0;
        double start = now_seconds();
        s = pn_tok_encode_text(e, text, n, true);
        double rate = 1e-6 * (double)n / (now_seconds() - start);
        if (rate > *mb_per_second) *mb_per_second = rate;
    }
    *n_ids = ids.n;
    pn_ids_free(&ids);
    pn_tok_encoder_destroy(&e);
    return s;
}

static pn_status report_speed(const pn_tokenizer *t, tally *c) {
    size_t once = c->ascii.n;
    if (once == 0) return PN_OK;
    while (c->ascii.n < TIMED_BYTES) {
        size_t more = c->ascii.n < TIMED_BYTES - c->ascii.n ? c->ascii.n : once;
        pn_tok_arena copy = { 0 }; /* appending an arena to itself would read what realloc moved */
        pn_status s = pn_tok_append(&copy, c->ascii.data, more);
        if (s == PN_OK) s = pn_tok_append(&c->ascii, copy.data, more);
        free(copy.data);
        PN_TRY(s);
    }
    double warm, cold;
    int64_t n_ids;
    PN_TRY(time_encoder(t, c->ascii.data, c->ascii.n, true, &warm, &n_ids));
    PN_TRY(time_encoder(t, c->ascii.data, c->ascii.n, false, &cold, &n_ids));
    fprintf(
        c->out,
        "encoding, one core, %.1f MB of the ASCII texts repeated (%.2f bytes per token): %.1f MB/s, %.1f MB/s without "
        "the word cache\n",
        1e-6 * (double)c->ascii.n, (double)c->ascii.n / (double)n_ids, warm, cold);
    return PN_OK;
}

pn_status pn_tokenizer_check(const char *dir, const char *expected_jsonl, FILE *out) {
    pn_tokenizer *t;
    PN_TRY(pn_tokenizer_open(dir, &t));
    tally c = { .out = out, .path = expected_jsonl };
    FILE *f = fopen(expected_jsonl, "rb");
    pn_status s =
        f ? check_lines(t, &c, f)
          : pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot be opened: %s", expected_jsonl, strerror(errno));
    if (f) fclose(f);
    if (s == PN_OK && c.n_passed + c.n_failed == 0)
        s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: has no lines to check", expected_jsonl);
    if (s == PN_OK) s = report_speed(t, &c);
    if (s == PN_OK) {
        if (c.n_failed > MAX_SHOWN) fprintf(out, "... and %lld more\n", (long long)(c.n_failed - MAX_SHOWN));
        fprintf(out, "%lld passed, %lld failed\n", (long long)c.n_passed, (long long)c.n_failed);
        if (c.n_failed > 0)
            s = pn_fail_at(__FILE__, __LINE__, PN_MISMATCH, "%s: %lld of %lld texts differ from %s", dir,
                           (long long)c.n_failed, (long long)(c.n_passed + c.n_failed), expected_jsonl);
    }
    free(c.ascii.data);
    pn_tokenizer_destroy(&t);
    return s;
}
