/* Where the numbers come from: every plain value of the result that no other section shows. */
#include "report_internal.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH = 6, LIST_MAX = 64 };

static bool shown_elsewhere(const char *key) {
    static const char *const keys[] = { "layers",  "table",        "cache_bytes",    "importance",
                                        "history", "local_errors", "supernet_curve", "distill_curve",
                                        "gates",   "stages",       "config" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i])) return true;
    return false;
}

static bool is_plain(const json_t *v) {
    return json_is_string(v) || json_is_number(v) || json_is_boolean(v) || json_is_null(v);
}

static void plain(pn_buf *b, const json_t *v) {
    char text[PN_PAGE_TEXT];
    if (json_is_string(v))
        pn_html(b, "%s", json_string_value(v));
    else if (json_is_integer(v))
        pn_html(b, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        pn_html(b, "%s", pn_double_text(json_real_value(v), text, sizeof text));
    else
        pn_buf_text(b, json_is_null(v) ? "null" : json_is_true(v) ? "true" : "false");
}

static void value(pn_buf *b, const char *name, const json_t *v, int depth) {
    if (is_plain(v)) {
        pn_html(b, "<dt>%s</dt><dd>", name);
        plain(b, v);
        pn_buf_text(b, "</dd>\n");
    } else if (json_is_array(v)) {
        pn_html(b, "<dt>%s</dt><dd>", name);
        for (size_t i = 0, n = json_array_size(v); i < n && i < LIST_MAX; i++) {
            if (i) pn_buf_text(b, ", ");
            if (is_plain(json_array_get(v, i)))
                plain(b, json_array_get(v, i));
            else
                pn_buf_text(b, "\xe2\x80\xa6");
        }
        if (json_array_size(v) > LIST_MAX) pn_buf_text(b, ", \xe2\x80\xa6");
        pn_buf_text(b, "</dd>\n");
    } else if (depth < DEPTH) {
        const char *key;
        json_t *child;
        json_object_foreach((json_t *)v, key, child) {
            pn_buf whole = { 0 };
            pn_buf_text(&whole, name);
            pn_buf_char(&whole, '.');
            pn_buf_text(&whole, key);
            b->failed |= whole.failed;
            value(b, pn_buf_string(&whole), child, depth + 1);
            pn_buf_free(&whole);
        }
    }
}

/* The text of config.yaml, line by line: pn_html takes a newline for a space. */
static void config_text(pn_buf *b, const char *text) {
    pn_buf_text(b, "<details><summary>Every value of the configuration</summary>\n<div class=\"scroll\"><pre>");
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        char *copy = strndup(line, n);
        b->failed |= !copy;
        if (copy) pn_html(b, "%s", copy);
        pn_buf_char(b, '\n');
        free(copy);
        line += n + (line[n] == '\n');
    }
    pn_buf_text(b, "</pre></div></details>\n");
}

static void commands(pn_buf *b) {
    pn_buf_text(
        b, "<h3>To make it again</h3>\n<p class=\"how\">Beside this page lie config.yaml, with every value and "
           "where it came from, result.json, which this page was made from, and model/, the hybrid.</p>\n"
           "<div class=\"scroll\"><pre>postnas search --config config.yaml --set output=AGAIN   # the same search, "
           "from the same weights\n"
           "postnas eval model --config config.yaml                   # the last row of the held-out scores\n"
           "postnas report .                                          # this page</pre></div>\n");
}

void pn_page_configuration(pn_page *r) {
    pn_page_section(r, "configuration", "Configuration and provenance");
    pn_html(
        r->out,
        "<p class=\"how\">What was %s, with which settings and from which weights; the numbers above can be repeated "
        "from these and the run's config.yaml.</p>\n<dl>\n",
        pn_page_is_training(r->root) ? "trained" : "searched");
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)r->root, key, v) if (!shown_elsewhere(key)) value(r->out, key, v, 0);
    pn_buf_text(r->out, "</dl>\n");
    const char *config = pn_page_string(r->root, "config");
    if (config) config_text(r->out, config);
    if (pn_page_string(r->root, "path")) commands(r->out);
    pn_page_section_end(r);
}
