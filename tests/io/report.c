/* The report page: whole and well formed for any result, nothing from the result read as markup, nothing invented. */
#include "harness.h"
#include <ctype.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "report.h"
#include "report_internal.h"
#include "report_variants.h"
#include "task.h"

static const char example[] = POSTNAS_SOURCE_DIR "/tests/data/report/result.json"; /* made up, not measured */

static const char *const sections[] = { "stack",      "table",        "distances",    "cache",
                                        "importance", "history",      "pareto",       "selectors",
                                        "gates",      "local-errors", "distillation", "configuration" };
enum { N_SECTIONS = sizeof sections / sizeof *sections };

/* ---- a small checker of well-formedness, stricter than HTML: every element closed, every attribute quoted ---- */

static const char *name_end(const char *p) {
    while (isalnum((unsigned char)*p) || *p == '-') p++;
    return p;
}

/* "" when well formed, else what is wrong and where. */
static const char *malformed(const char *page) {
    static char why[160];
    struct {
        const char *name;
        size_t n;
    } open[64];
    int depth = 0;
    const char *p = page;
#define BAD(what) return snprintf(why, sizeof why, "%s at \"%.60s\"", what, p), why
    if (strncmp(p, "<!DOCTYPE html>\n", 16)) BAD("no doctype");
    for (p += 16; *p;) {
        if (*p == '&') {
            const char *end = p + 1 + (p[1] == '#');
            end = name_end(end);
            if (*end != ';' || end == p + 1) BAD("bare ampersand");
            p = end + 1;
        } else if (*p == '>') {
            BAD("bare >");
        } else if (*p != '<') {
            if ((unsigned char)*p < 0x20 && *p != '\n') BAD("control character");
            p++;
        } else if (p[1] == '/') {
            const char *name = p + 2, *end = name_end(name);
            if (!depth || open[depth - 1].n != (size_t)(end - name) || strncmp(open[depth - 1].name, name, end - name))
                BAD("closes what is not open");
            if (*end != '>') BAD("no > after a closing tag");
            depth--;
            p = end + 1;
        } else {
            const char *name = p + 1, *end = name_end(name);
            if (end == name) BAD("no element name");
            size_t n = (size_t)(end - name);
            for (; *end == ' ' && end[1] != '/';) { /* attributes */
                const char *key = end + 1, *equals = name_end(key);
                if (equals == key || equals[0] != '=' || equals[1] != '"') BAD("attribute without quotes");
                end = equals + 2 + strcspn(equals + 2, "\"<");
                if (*end != '"') BAD("attribute does not end");
                end++;
            }
            while (*end == ' ') end++;
            if (end[0] == '/' && end[1] == '>') {
                p = end + 2;
                continue;
            }
            if (*end != '>') BAD("no > after a tag");
            if (depth == 64) BAD("too deep");
            open[depth].name = name;
            open[depth++].n = n;
            p = end + 1;
        }
    }
    if (depth) BAD("something is still open");
#undef BAD
    return "";
}

/* A run with the stages after the placement, and its speeds. */
static const char stages_result[] = POSTNAS_SOURCE_DIR "/tests/data/report/stages-result.json";
static const char stages_speed[] = POSTNAS_SOURCE_DIR "/tests/data/report/stages-speed.json";

static json_t *load_file(const char *file) {
    json_t *root;
    ck_ok(pn_json_load(file, 1 << 20, &root));
    return root;
}

static json_t *load(void) {
    return load_file(example);
}

/* The page; the caller frees it. */
static char *render_both(const json_t *root, const json_t *speed) {
    pn_buf page = { 0 };
    ck_ok(pn_page_render(root, speed, &page));
    ck_assert_uint_eq(strlen(page.data), page.n_bytes);
    const char *why = malformed(page.data);
    ck_assert_msg(!*why, "malformed: %s", why);
    return page.data;
}

static char *render(const json_t *root) {
    return render_both(root, NULL);
}

static bool has_section(const char *page, const char *id) {
    char text[80];
    snprintf(text, sizeof text, "<section id=\"%s\">", id);
    return strstr(page, text) != NULL;
}

static int count(const char *page, const char *text) {
    int n = 0;
    for (const char *p = page; (p = strstr(p, text)); p++) n++;
    return n;
}

static void holds(const char *page, const char *text) {
    ck_assert_msg(strstr(page, text) != NULL, "the page does not hold \"%s\"", text);
}

static void lacks(const char *page, const char *text) {
    const char *at = strstr(page, text);
    ck_assert_msg(!at, "the page holds \"%.80s\"", at);
}

START_TEST(checker_can_fail) {
#define P "<!DOCTYPE html>\n"
    ck_assert_str_eq(malformed(P "<p class=\"a\">x &amp; y<br /></p>"), "");
    const char *const bad[] = {
        "<p></p>",           P "<p>",          P "<p></b>",         P "a & b",       P "<p>a > b</p>",
        P "<p class=a></p>", P "<p x=\"<\"/>", P "<p x=\"a\"b\"/>", P "<p>\001</p>", P "</p>"
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(*malformed(bad[i]), "\"%s\" passes the checker", bad[i]);
#undef P
}
END_TEST

/* The error before training is drawn where the result knows it, and only there. */
START_TEST(errors_before_training) {
    json_t *root = load();
    char *page = render(root);
    holds(page, "<title>layer 0, gated_deltanet: 1.250 before the first update, ");
    ck_assert_int_eq(count(page, " before the first update, "), 1);
    ck_assert_int_eq(count(page, "height=\"1.5\"/>"), 1);
    free(page);
    json_decref(root);
}
END_TEST

START_TEST(whole_page) {
    json_t *root = load();
    char *page = render(root);
    for (int i = 0; i < N_SECTIONS; i++) ck_assert_msg(has_section(page, sections[i]), "no section %s", sections[i]);
    ck_assert(!has_section(page, "supernet")); /* the example has no curve of that stage */
    /* every section says how to read it */
    for (int i = 0; i < N_SECTIONS; i++) {
        char text[80];
        snprintf(text, sizeof text, "<section id=\"%s\">", sections[i]);
        const char *section = strstr(page, text), *how = strstr(section, "<p class=\"how\">");
        ck_assert_msg(how && how < strstr(section, "</section>"), "section %s does not say how to read it",
                      sections[i]);
        snprintf(text, sizeof text, "<a href=\"#%s\">", sections[i]);
        holds(page, text);
    }
    holds(page, "made-up example (not measured)");
    holds(page, "2 of 8 layers keep full attention: layers 2 and 4 (counted from 0)");
    holds(page,
          "At 256K tokens of context one sequence's decode state takes 64.0\xc2\xa0MiB instead of 256.0\xc2\xa0MiB");
    holds(page, "The beam search measured 28 paths, ranked by recall.nll");
    holds(page, "it is better than uniform beyond the spread");
    holds(page, "<dt>limits.full_attention</dt><dd>2</dd>");
    holds(page, "<dt>supernet_weights</dt><dd>0123456789abcdef</dd>");
    holds(page, "<dt>postnas</dt><dd>0.0.0</dd>");
    holds(page, "<pre>model: made-up\nseed: 1\nsearch:\n  strategy: beam\n</pre>");
    ck_assert_int_eq(count(page, "(round "), 28); /* a dot each */
    /* self-contained */
    lacks(page, "http:");
    lacks(page, "https:");
    lacks(page, "<script");
    lacks(page, "src=");
    lacks(page, "href=\"h");
    ck_assert_int_eq(count(page, "href="), count(page, "href=\"#"));
    lacks(page, "url(");
    lacks(page, ">nan");
    lacks(page, "\"nan");
    free(page);
    json_decref(root);
}
END_TEST

/* A tree where rounds and parents are known, else columns by layers of attention. */
START_TEST(search_as_a_tree) {
    json_t *root = load(), *history = json_object_get(root, "history"), *row;
    size_t i;
    char *page = render(root);
    holds(page, "round 0, measured as number 1, kept)");
    holds(page, "round 1, measured as number 6, kept)"); /* 15 paths grew from numbers 4 and 6 */
    holds(page, "round 1, measured as number 4, kept)");
    holds(page, "round 2, measured as number 12, kept)");
    holds(page, "round 3, measured as number 28, chosen)");
    ck_assert_int_eq(count(page, ", dropped)"), 28 - 5);
    holds(page, ">13 paths</text>");
    holds(page, "<td class=\"left\">layer 4 becomes attention</td><td title=\"2.9919\">2.992</td>");
    holds(page, "<td class=\"left\">layer 2 becomes attention</td><td title=\"0.22\">0.220</td>");
    holds(page, "layer 1 becomes jet, layer 5 becomes jet, layer 7 becomes none</td><td title=\"0.16\">");
    const char *links =
        strstr(page, "<path class=\"link\" d=\""); /* 23 dropped ones, one kept beside the winner's three */
    int n = 0;
    for (const char *p = links; p < strchr(links, '>'); p++) n += *p == 'M';
    ck_assert_int_eq(n, 23);
    free(page);

    json_t *odd[] = {
        json_integer(27), json_integer(28), json_integer(-5), json_real(2.5),
        json_real(1e99),  json_null(),      json_string("11")
    }; /* none of them a path measured before the last one */
    for (size_t k = 0; k < sizeof odd / sizeof *odd; k++) {
        json_object_set_new(json_array_get(history, 27), "parent", odd[k]);
        page = render(root);
        lacks(page, "How the choice came about");
        holds(page, "measured as number 28, chosen)");
        free(page);
    }
    json_array_foreach(history, i, row) json_object_del(row, "parent");
    page = render(root);
    holds(page, "in columns by round;");
    lacks(page, "class=\"link\"");
    lacks(page, "dropped");
    free(page);
    json_array_foreach(history, i, row) json_object_del(row, "round");
    page = render(root);
    holds(page, "in columns by how many layers have full attention;");
    holds(page, "+ 1 none");
    free(page);
    json_decref(root);
}
END_TEST

/* Stages with objectives of their own do not share an axis. */
START_TEST(stages) {
    json_t *root = load(), *history = json_object_get(root, "history"), *row;
    size_t i;
    json_object_set_new(root, "stages",
                        json_pack("[{s:[s], s:s, s:b, s:s}, {s:[s, s], s:s, s:b, s:b, s:s}, {s:[s], s:s, s:b}]",
                                  "kinds", "full_attention", "objective", "recall.nll", "ascending", 0, "path",
                                  "gated_deltanet*2,attention,gated_deltanet,attention,gated_deltanet*3", "kinds",
                                  "swa", "none", "objective", "recall.nll + 0.5 text.nll", "ascending", 1, "normalised",
                                  1, "path", json_string_value(json_object_get(root, "path")), "kinds", "none",
                                  "objective", "text.nll", "ascending", 0)); /* the last one measured nothing */
    json_array_foreach(history, i, row) json_object_set_new(row, "stage", json_integer(i >= 22));
    char *page = render(root);
    holds(page, "<h3>Stage 1: full_attention, by recall.nll</h3>");
    holds(page, "<h3>Stage 2: swa and none, by recall.nll + 0.5 text.nll</h3>");
    lacks(page, "Stage 3");
    ck_assert_int_eq(count(page, ">recall.nll, lower is better</text>"), 2); /* of history and pareto */
    ck_assert_int_eq(count(page, ">recall.nll + 0.5 text.nll, higher is better</text>"), 2);
    holds(page, "round 2, measured as number 12, chosen)"); /* what stage 1 ended with */
    holds(page, "round 3, measured as number 28, chosen)");
    ck_assert_int_eq(count(page, "(round "), 28);
    holds(page, "<h4>How the choice came about</h4>");
    /* the best of stage 2 is the one of the largest objective now */
    holds(strstr(page, "<h3>Stage 2"), "<h4>Best complete paths</h4>");
    holds(strstr(strstr(page, "<h3>Stage 2"), "<tbody>"), "<td title=\"0.9812\">0.981</td>");
    free(page);
    json_decref(root);
}
END_TEST

START_TEST(score_against_state) {
    json_t *root = load(), *history = json_object_get(root, "history"), *row;
    size_t i;
    char *page = render(root);
    const char *section = strstr(page, "<section id=\"pareto\">");
    holds(section, ": 0.160, 16.0\xc2\xa0MiB</title>");
    holds(section, "<desc>PostNAS: 0.160, 16.0\xc2\xa0MiB. uniform: 2.999, 16.0\xc2\xa0MiB. all linear: 4.630, "
                   "64.0\xc2\xa0KiB. teacher (held-out): 0.001, 64.0\xc2\xa0MiB. </desc>");
    holds(section, "<title>PostNAS</title>");
    holds(section, "<title>uniform</title>");
    holds(section, "teacher (held-out)"); /* 64 MiB from the list of contexts, 0.0008 from the table */
    lacks(section, "uniform (held-out)"); /* the search measured that path */
    lacks(section, "PostNAS (held-out)");
    /* the staircase: all linear, the best single layer, the winner (cheaper than the others of two) */
    const char *stairs = strstr(section, "<path class=\"frontier\" d=\"M"); /* the first is the legend's */
    stairs = strstr(stairs + 1, "<path class=\"frontier\" d=\"M");
    ck_assert_ptr_nonnull(stairs);
    int steps = 0;
    for (const char *p = stairs; p < strchr(stairs, '>'); p++) steps += *p == 'V';
    ck_assert_int_eq(steps, 2);
    free(page);
    json_array_remove(history, 20); /* now it did not; its bytes are those of a path of the same kinds */
    page = render(root);
    holds(page, "uniform (held-out)");
    free(page);
    json_array_foreach(history, i, row) json_object_del(row, "cache_bytes");
    page = render(root);
    ck_assert(!has_section(page, "pareto"));
    free(page);
    json_decref(root);
}
END_TEST

START_TEST(selectors_side_by_side) {
    json_t *root = load(), *rows = json_object_get(json_object_get(root, "selectors"), "rows");
    char *page = render(root), *section = strstr(page, "<section id=\"selectors\">");
    holds(section, "<desc>uniform: 1.950 with 1; 3.000 with 3; kl_guided: 1.950 with 1; beam: 1.250 with 1; 0.750 with "
                   "3; </desc>");
    holds(section, ">recall.nll + 0.5 text.nll, lower is better</text>");
    holds(section, "<th scope=\"col\">1</th><th scope=\"col\">3</th>"); /* 2 was not compared */
    holds(section, "<tr><th scope=\"row\">uniform</th><td>1.950<small>1.900\xe2\x80\x93"
                   "2.000</small><small>1 path</small>");
    holds(section, "<b>0.750</b><small>0.700\xe2\x80\x93"
                   "0.800</small><small>33 paths</small>");
    holds(section, "<tr><th scope=\"row\">kl_guided</th><td>1.950");
    holds(strstr(section, ">kl_guided</th>"),
          "<td>\xe2\x80\x93</td></tr>\n<tr><th scope=\"row\">beam</th><td><b>1.250</b>");
    *strstr(section, "</section>") = '\0';
    ck_assert_int_eq(count(section, "<circle"), 5);
    ck_assert_int_eq(count(section, " curve\""), 3);
    ck_assert_int_eq(count(section, "<b>"), 2); /* one per column */
    free(page);

    /* more is better, and one number of layers: the best is another, and the points stand alone */
    json_object_set_new(json_object_get(root, "selectors"), "ascending", json_true());
    json_array_remove(rows, 4);
    json_array_remove(rows, 3);
    page = render(root);
    section = strstr(page, "<section id=\"selectors\">");
    holds(section, "<tr><th scope=\"row\">uniform</th><td><b>1.950</b>");
    holds(section, "<tr><th scope=\"row\">kl_guided</th><td><b>1.950</b>");
    holds(section, "<tr><th scope=\"row\">beam</th><td>1.250");
    free(page);
    json_array_clear(rows);
    page = render(root);
    ck_assert(!has_section(page, "selectors"));
    free(page);
    json_decref(root);
}
END_TEST

START_TEST(gates_over_training) {
    json_t *root = load(), *gates = json_object_get(root, "gates");
    char *page = render(root);
    holds(page, "Steps 0 to 50, 102k tokens; temperature 1 at first, 0.5 at last.");
    holds(page, "<title>layer 4: attention 0.982 gated_deltanet 0.018</title>");
    holds(page, "; the search chose another</title>"); /* layer 6: attention 0.622, and a linear block was chosen */
    ck_assert_int_eq(count(strstr(page, "<section id=\"gates\">"), "class=\"frame\""), 8);
    free(page);
    json_object_del(gates, "points"); /* what they became alone */
    page = render(root);
    holds(page, "<title>layer 4: attention 0.982");
    free(page);
    json_object_set_new(gates, "final",
                        json_pack("[[f, f, f], n, s, [], [s, n], [f]]", 2.0, -1.0, 0.5, "x", "y", 0.25));
    free(render(root));
    json_object_del(gates, "candidates");
    page = render(root);
    ck_assert(!has_section(page, "gates"));
    free(page);
    json_decref(root);
}
END_TEST

/* The numbers of the paragraph are the table's: change one, and it changes. */
START_TEST(numbers_come_from_the_result) {
    json_t *root = load(), *table = json_object_get(root, "table");
    json_t *winner = json_array_get(table, json_array_size(table) - 1);
    ck_assert_str_eq(json_string_value(json_object_get(winner, "name")), "PostNAS, distilled");
    json_t *accuracy = json_object_get(json_object_get(json_object_get(winner, "tasks"), "recall"), "accuracy");
    json_object_set_new(accuracy, "mean", json_real(0.12344));
    json_object_set_new(accuracy, "min", json_real(0.01));
    json_array_set_new(json_object_get(accuracy, "values"), 0, json_real(0.01)); /* the others are far above uniform */
    char *page = render(root);
    holds(page, "its accuracy is 12.3\xc2\xa0% after distillation");
    holds(page, "mean 0.12344, least 0.01");
    holds(page, "it is no different from uniform beyond the spread");
    holds(page, "within that spread on 2 (recall and text)");
    lacks(page, "it is better than uniform beyond the spread.");
    free(page);
    /* a winner without distillation is held against the uniform one without */
    json_array_remove(table, json_array_size(table) - 1);
    page = render(root);
    lacks(page, "after distillation");
    holds(page, "uniform placement has");
    free(page);
    json_decref(root);
}
END_TEST

/* The part of the page that is one section; the caller frees it. */
static char *section_of(const char *page, const char *id) {
    char text[80];
    snprintf(text, sizeof text, "<section id=\"%s\">", id);
    const char *from = strstr(page, text);
    ck_assert_msg(from != NULL, "no section %s", id);
    return strndup(from, (size_t)(strstr(from, "</section>") - from));
}

START_TEST(later_stages) {
    json_t *root = load_file(stages_result), *speed = load_file(stages_speed);
    char *page = render_both(root, speed), *block = section_of(page, "block"), *shape = section_of(page, "shape");
    lacks(page, "&lt;");
    ck_assert_int_eq(count(page, "href="), count(page, "href=\"#"));
    /* best first, under the names of their texts; gla is another block of that name in the super-network */
    const char *jet =
        strstr(block, ">jet (chosen)</th><td title=\"2\">2.000</td><td title=\"0.625\">62.5\xc2\xa0%</td>");
    const char *gla = strstr(block, ">gla<small>in paths: gla_2</small></th><td title=\"2.25\">2.250</td>");
    const char *retnet = strstr(block, ">retnet</th><td title=\"2.75\">2.750</td>");
    ck_assert(jet && gla && retnet && jet < gla && gla < retnet);
    holds(block, "<tr class=\"winner\"><th scope=\"row\">jet (chosen)");
    ck_assert_int_eq(count(block, "class=\"winner\""), 2);
    holds(block, "chance</th><td></td><td>4.0\xc2\xa0%</td><td></td><td></td>");
    lacks(block, "accuracy@64");
    /* the errors are means over four layers: 1.125 + 3/16, 0.5 + 3/32 */
    holds(block, ">jet (chosen)</th><td title=\"1.3125\">1.312</td><td title=\"0.59375\">0.594</td>"
                 "<td title=\"20000\">20.0k</td><td title=\"48000\">48.0k</td><td title=\"9728\">9.5\xc2\xa0KiB</td>"
                 "<td title=\"478000\">478k</td><td title=\"462000\">462k</td><td title=\"266000\">266k</td>"
                 "<td title=\"208000\">208k</td><td>yes</td>");
    holds(block, "<th scope=\"col\">4K</th><th scope=\"col\">64K</th>");
    holds(block, "in units of the objective: decode 0.05.");
    holds(block, "The stage ended with jet,<wbr />attention,<wbr />gla_2,<wbr />jet, whose objective is 1.750.");
    holds(block, "<title>layer 2, hybrid: gla_2</title>"); /* a mixture */
    holds(block,
          "<desc>On the front, from the fastest: gla: 2.250 at 815k tokens/s; jet: 2.000 at 478k tokens/s.</desc>");
    ck_assert_int_eq(count(block, "<svg class=\"plot wide\""), 2); /* contexts */
    ck_assert_int_eq(count(block, ">jet (chosen)</text>"), 2);
    /* one type: its name stands once, above */
    holds(shape, "<th scope=\"col\" class=\"left\">jet</th>");
    holds(shape, ">num_heads 8<small>in paths: jet_5</small></th><td title=\"1.55\">1.550</td>");
    holds(shape, ">num_heads 2 (chosen)</text>");
    lacks(shape, "A mixture");
    /* at 4K tokens, 8 heads are slower than 2 and no better; at 64K they are faster */
    holds(shape, "fastest: jet num_heads 4: 1.625 at 480k tokens/s; jet num_heads 2: 1.500 at 400k tokens/s.</desc>");
    holds(shape, "fastest: jet num_heads 4: 1.625 at 400k tokens/s; jet num_heads 8: 1.550 at 370k tokens/s; "
                 "jet num_heads 2: 1.500 at 360k tokens/s.</desc>");
    free(block);
    free(shape);
    free(page);

    /* another chosen one, another way to improve, other numbers */
    json_t *stage = json_array_get(json_object_get(root, "variants"), 0);
    json_object_set_new(stage, "chosen", json_integer(0));
    json_object_set_new(stage, "ascending", json_true());
    json_object_set_new(json_array_get(json_object_get(stage, "variants"), 0), "parameters", json_integer(1234567));
    page = render_both(root, speed);
    block = section_of(page, "block");
    ck_assert_ptr_nonnull(retnet = strstr(block, ">retnet (chosen)</th><td title=\"2.75\">"));
    ck_assert(retnet < strstr(block, ">gla<"));
    holds(block, "<td title=\"1234567\">1.23M</td>");
    holds(block, "from the fastest: gla: 2.250 at 815k tokens/s; retnet: 2.750 at 300k tokens/s.");
    free(block);
    free(page);
    json_decref(root);
    json_decref(speed);
}
END_TEST

START_TEST(whole_models) {
    json_t *root = load_file(stages_result), *speed = load_file(stages_speed);
    char *page = render_both(root, speed);
    holds(page,
          "<p><b>Speed.</b> Measured: at 64K tokens of context it decodes 100 tokens/s instead of 25 (4.00\xc3\x97); "
          "it reads a prompt of 64K tokens with 1.05k tokens/s instead of 300 (3.50\xc3\x97).</p>");
    holds(page, "<li><b>4.0\xc3\x97</b><span>faster decoding at 64K tokens, measured</span></li>");
    holds(page, "<th scope=\"row\">decode, 4K</th><td title=\"400\">400</td><td title=\"320\">320</td>"
                "<td>\xe2\x88\x92"
                "20.0\xc2\xa0%</td><td title=\"1600\">1.60k</td><td title=\"800\">800</td><td>\xe2\x88\x92"
                "50.0\xc2\xa0%</td><td>4.00\xc3\x97</td><td>2.50\xc3\x97</td></tr>");
    holds(page, "each of 8 sequences of that context, prefill one prompt of that length in pieces of 512 tokens.");
    free(page);
    json_t *models = json_object_get(speed, "models");
    json_array_remove(models, 2); /* the base's decode at 64K */
    json_object_set_new(json_array_get(models, 0), "error", json_real(0.125));
    page = render_both(root, speed);
    holds(page, "<th scope=\"row\">decode, 64K</th><td>\xe2\x80\x93</td><td>\xe2\x80\x93</td><td>\xe2\x80\x93</td>"
                "<td title=\"80\">80</td>");
    holds(page, "<span>faster decoding at 4K tokens, measured</span>");
    holds(page, "<td>+12.5\xc2\xa0%</td>");
    free(page);
    json_decref(root);
    json_decref(speed);
}
END_TEST

/* Without speeds nothing measured is shown; without the stages the speeds add only the whole models. */
START_TEST(stages_or_speeds_alone) {
    json_t *root = load_file(stages_result), *speed = load_file(stages_speed), *plain = load();
    char *page = render(root), *block = section_of(page, "block");
    ck_assert(has_section(page, "shape") && !has_section(page, "speed"));
    lacks(page, "tokens/s");
    lacks(page, "Pareto front");
    holds(block, "<td title=\"9728\">9.5\xc2\xa0KiB</td></tr>");
    free(block);
    free(page);
    char *before = render(plain);
    ck_assert(!has_section(before, "block") && !has_section(before, "shape") && !has_section(before, "speed"));
    page = render_both(plain, speed);
    ck_assert(!has_section(page, "block") && !has_section(page, "shape") && has_section(page, "speed"));
    free(page);
    json_t *nothing = json_object();
    page = render_both(plain, nothing);
    ck_assert_str_eq(page, before);
    free(page);
    free(before);
    /* speeds of another run: no candidate of these texts */
    const char *list = "stages";
    json_object_set_new(speed, list,
                        json_pack("[{s:s, s:[{s:s, s:[f, f]}]}, {s:s}]", "stage", "block", "variants", "text",
                                  "no_such", "decode", 1.0, 2.0, "stage", "shape"));
    page = render_both(root, speed);
    block = section_of(page, "block");
    lacks(block, "decode at, tokens/s");
    lacks(block, "<svg class=\"plot wide");
    free(block);
    free(page);
    /* neither is an object */
    pn_buf out = { 0 };
    json_t *array = json_array();
    ck_assert_int_eq(pn_page_render(root, array, &out), PN_FORMAT);
    pn_buf_free(&out);
    json_decref(array);
    json_decref(nothing);
    json_decref(plain);
    json_decref(root);
    json_decref(speed);
}
END_TEST

/* From its element: letters are taken for 9.2 wide, as a narrow window shows them. */
static void where_label_stands(const char *element, double at[3]) {
    char kind[64];
    double x;
    const char *text = strchr(element, '>') + 1;
    ck_assert_int_eq(sscanf(element, "<text class=\"%63[^\"]\"", kind), 1);
    ck_assert_int_eq(sscanf(strstr(element, " x=\""), " x=\"%lf\" y=\"%lf\"", &x, &at[2]), 2);
    double width = 9.2 * (double)strcspn(text, "<");
    at[0] = x - (strstr(kind, " end") ? width : strstr(kind, " mid") ? width / 2 : 0);
    at[1] = at[0] + width;
}

/* Labels meet neither each other nor the edge: as many candidates as there can be, at the same spot or apart. */
START_TEST(labels_of_many) {
    for (int together = 0; together < 2; together++) {
        json_t *root = json_object(), *list = json_array(), *rates = json_array();
        char text[128];
        for (int i = 0; i < 70; i++) { /* more than are shown */
            snprintf(text, sizeof text, "jet num_heads %d head_dim %d", i / 8 + 1, 16 * (i % 8 + 1));
            json_array_append_new(
                list, json_pack("{s:s, s:f}", "text", text, "objective", together ? 1.5 : (i * 37 % 64) / 64.0));
            json_array_append_new(rates,
                                  json_pack("{s:s, s:[f]}", "text", text, "decode", together ? 1e5 : 1e5 + 997 * i));
        }
        json_object_set_new(root, "variants",
                            json_pack("[{s:s, s:s, s:i, s:o}]", "stage", "shape", "objective", "recall.nll", "chosen",
                                      3, "variants", list));
        json_t *speed =
            json_pack("{s:[i], s:[{s:s, s:o}]}", "contexts", 4096, "stages", "stage", "shape", "variants", rates);
        char *page = render_both(root, speed), *shape = section_of(page, "shape");
        holds(shape, "Points are labelled num_heads / head_dim.");
        holds(shape, ">1 / 64 (chosen)</text>");
        int n = 0;
        double at[PN_PAGE_VARIANTS][3]; /* left, right, base line */
        for (const char *p = shape; (p = strstr(p, "<text class=\"halo")); n++, p++) where_label_stands(p, at[n]);
        for (int i = 0; i < n; i++) {
            ck_assert(at[i][0] >= 50 && at[i][1] <= 726);
            for (int k = 0; k < i; k++)
                ck_assert_msg(at[i][1] <= at[k][0] || at[k][1] <= at[i][0] || fabs(at[i][2] - at[k][2]) >= 15,
                              "labels %d and %d meet", k, i);
        }
        ck_assert_int_ge(n, together ? 4 : 30);
        snprintf(text, sizeof text, "<p class=\"how\">%d points had no room for a name", PN_PAGE_VARIANTS - n);
        holds(shape, text);
        ck_assert_int_eq(count(shape, "<circle class=\"k1\" cx=\"7\""), 1); /* the legend's */
        free(shape);
        free(page);
        json_decref(root);
        json_decref(speed);
    }
}
END_TEST

/* Replaces every string and every name of an object by a hostile one (names the report looks for stay). */
static json_t *poison(const json_t *v, const char *evil, bool names) {
    if (json_is_string(v)) return json_string(evil);
    if (json_is_array(v)) {
        json_t *list = json_array();
        for (size_t i = 0; i < json_array_size(v); i++)
            json_array_append_new(list, poison(json_array_get(v, i), evil, names));
        return list;
    }
    if (!json_is_object(v)) return json_deep_copy(v);
    json_t *o = json_object(), *child;
    const char *key;
    json_object_foreach((json_t *)v, key, child) {
        bool tasks = !strcmp(key, "tasks") || !strcmp(key, "gain");
        char renamed[256];
        snprintf(renamed, sizeof renamed, names ? "%s%s" : "%s", key, evil);
        json_object_set_new(o, renamed, poison(child, evil, tasks));
    }
    return o;
}

/* The page of finetune, of whatever shape its result is. */
START_TEST(training) {
    static const char result[] =
        "{\"kind\": \"finetune\", \"model\": \"<base>\", \"weights\": 342232, \"stages\": ["
        "{\"name\": \"dis<b>til\", \"tokens\": 4096, \"curve\": ["
        "{\"step\": 1, \"tokens\": 2048, \"loss\": 3.5, \"ce\": 0, \"kl\": 3.5, \"feature\": 0},"
        "{\"step\": 2, \"tokens\": 4096, \"loss\": 1.25, \"ce\": 0, \"kl\": 1.25, \"feature\": 0}],"
        "\"heldout\": [{\"step\": 2, \"tokens\": 4096, \"loss\": 1.5, \"ce\": 2, \"kl\": 1.5}]},"
        "{\"name\": 7, \"curve\": {}, \"heldout\": [null, {\"step\": \"x\"}, 3]}, null, []],"
        "\"config\": \"seed: 1\\n\"}";
    static const char *const shown[] = { "<title>postnas finetune: &lt;base&gt;</title>", "4.10k",
                                         "Stage 1: dis&lt;b&gt;til",
                                         "<td>1.500</td><td>2.000</td><td>1.500</td><td>7.389</td>",
                                         "What was trained" };
    json_t *root;
    ck_ok(pn_json_parse("result.json", result, strlen(result), &root));
    pn_buf page = { 0 };
    ck_ok(pn_page_render(root, NULL, &page));
    ck_assert_str_eq(malformed(pn_buf_string(&page)), "");
    for (size_t k = 0; k < sizeof shown / sizeof *shown; k++)
        ck_assert_msg(strstr(pn_buf_string(&page), shown[k]), "%s", shown[k]);
    pn_buf_clear(&page);
    json_object_set_new(root, "stages", json_integer(3));
    ck_ok(pn_page_render(root, NULL, &page));
    ck_assert_str_eq(malformed(pn_buf_string(&page)), "");
    pn_buf_free(&page);
    json_decref(root);
}
END_TEST

START_TEST(hostile_strings) {
    static const char *const evil[] = {
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</title></style></section><blink>",
        "&lt;&#60;&amp;&",
        "%s%n%d%%",
        "\x01\x02\x7f\n\r\t",
        "a,b*999999999999999999999,*3,,c*-1,d*x",
        "\xe2\x80\xae\xf0\x9f\x98\x80\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
        "\xc3\xa9"
        "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3"
        "\xa9",
        "",
    };
    for (size_t i = 0; i < sizeof evil / sizeof *evil; i++) {
        json_t *root = load(), *bad = poison(root, evil[i], false);
        /* one row keeps its name, so that the summary is written too */
        json_object_set_new(json_array_get(json_object_get(bad, "table"), 0), "name", json_string("teacher"));
        json_object_set_new(bad, evil[i], json_string(evil[i]));
        json_t *later = load_file(stages_result), *speed = load_file(stages_speed);
        json_t *bad_stages = poison(later, evil[i], false), *bad_speed = poison(speed, evil[i], false);
        const char *const name[] = { "block", "shape" };
        for (size_t k = 0; k < 2; k++) { /* found by these names; every text is the evil one */
            json_object_set_new(json_array_get(json_object_get(bad_stages, "variants"), k), "stage",
                                json_string(name[k]));
            json_object_set_new(json_array_get(json_object_get(bad_speed, "stages"), k), "stage", json_string(name[k]));
        }
        char *page = render_both(bad_stages, bad_speed);
        ck_assert(has_section(page, "block") && has_section(page, "shape"));
        holds(page, "decode at, tokens/s");
        lacks(page, "<script");
        lacks(page, "<img");
        lacks(page, "' onmouseover");
        lacks(page, "<blink");
        lacks(page, "alert(1)>");
        free(page);
        json_decref(bad_speed);
        json_decref(bad_stages);
        json_decref(speed);
        json_decref(later);
        page = render(bad);
        lacks(page, "<script");
        lacks(page, "<img");
        lacks(page, "' onmouseover");
        lacks(page, "<blink");
        lacks(page, "alert(1)>");
        ck_assert(has_section(page, "table"));
        ck_assert(has_section(page, "history"));
        free(page);
        json_decref(bad);
        json_decref(root);
    }
}
END_TEST

START_TEST(missing_sections) {
    json_t *root = load();
    const char *key;
    json_t *unused;
    json_object_foreach(root, key, unused) { /* one part less, one part null, one part of the wrong type */
        json_t *less = json_deep_copy(root);
        json_object_del(less, key);
        free(render(less));
        json_object_set_new(less, key, json_null());
        free(render(less));
        json_object_set_new(less, key, json_integer(7));
        free(render(less));
        json_object_set_new(less, key, json_string("text"));
        free(render(less));
        json_object_set_new(less, key, json_array());
        free(render(less));
        json_object_set_new(less, key, json_object());
        free(render(less));
        json_object_set_new(less, key, json_pack("[n, i, s, [], {}, {s: n}]", 3, "x", "layer"));
        free(render(less));
        json_decref(less);
    }
    /* alone, each list gives its own section */
    static const char *const lists[][2] = { { "table", "table" },        { "cache_bytes", "cache" },
                                            { "history", "history" },    { "importance", "importance" },
                                            { "layers", "stack" },       { "local_errors", "local-errors" },
                                            { "selectors", "selectors" } };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *alone = json_object();
        json_object_set(alone, lists[i][0], json_object_get(root, lists[i][0]));
        char *page = render(alone);
        for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
            ck_assert_msg(has_section(page, lists[k][1]) == (i == k), "%s alone: section %s", lists[i][0], lists[k][1]);
        free(page);
        json_decref(alone);
    }
    json_decref(root);
    json_t *empty = json_object();
    char *page = render(empty);
    holds(page, "The result holds no placement, scores or cache sizes.");
    for (int i = 0; i < N_SECTIONS; i++) ck_assert_int_eq(has_section(page, sections[i]), i == N_SECTIONS - 1);
    free(page);
    json_decref(empty);
}
END_TEST

/* The n-th number anywhere in the tree becomes `with`; false when there are fewer. */
static bool replace_number(json_t *v, int *n, const json_t *with) {
    const char *key;
    json_t *child;
    if (json_is_object(v)) {
        json_object_foreach(v, key, child) {
            if (json_is_number(child) && (*n)-- == 0) return json_object_set(v, key, (json_t *)with), true;
            if (replace_number(child, n, with)) return true;
        }
    }
    for (size_t i = 0; i < json_array_size(v); i++)
        if (replace_number(json_array_get(v, i), n, with)) return true;
    return false;
}

static void replace_all(json_t *v, json_t *with) {
    const char *key;
    json_t *child;
    json_object_foreach(v, key, child) {
        if (json_is_number(child))
            json_object_set(v, key, with);
        else
            replace_all(child, with);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (json_is_number(json_array_get(v, i)))
            json_array_set(v, i, with);
        else
            replace_all(json_array_get(v, i), with);
    }
}

/* Each member of a part in turn is missing, or something else. */
static void without(json_t *part, const json_t *root, const json_t *speed) {
    json_t *whole = json_copy(part), *value;
    const char *key;
    json_object_foreach(whole, key, value) {
        json_t *other[] = { json_null(),  json_integer(7), json_string("text"),
                            json_array(), json_object(),   json_pack("[n, i, s, [], {}, {s: n}]", 3, "x", "text") };
        json_object_del(part, key);
        free(render_both(root, speed));
        for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
            json_object_set_new(part, key, other[i]);
            free(render_both(root, speed));
        }
        json_object_set(part, key, value);
    }
    json_decref(whole);
}

START_TEST(parts_of_stages_missing) {
    json_t *root = load_file(stages_result), *speed = load_file(stages_speed);
    json_t *stage = json_array_get(json_object_get(root, "variants"), 0);
    json_t *timed = json_array_get(json_object_get(speed, "stages"), 0);
    char *before = render_both(root, speed);
    without(root, root, speed);
    without(stage, root, speed);
    without(json_array_get(json_object_get(stage, "variants"), 1), root, speed);
    without(json_array_get(json_object_get(stage, "local_errors"), 0), root, speed);
    without(speed, root, speed);
    without(timed, root, speed);
    without(json_array_get(json_object_get(timed, "variants"), 0), root, speed);
    without(json_array_get(json_object_get(speed, "models"), 0), root, speed);
    char *after = render_both(root, speed);
    ck_assert_str_eq(after, before); /* all is back in its place */
    free(after);
    free(before);
    json_decref(root);
    json_decref(speed);
}
END_TEST

START_TEST(odd_numbers_of_stages) {
    json_t *both = json_pack("{s:o, s:o}", "result", load_file(stages_result), "speed", load_file(stages_speed));
    json_t *odd[] = {
        json_null(),       json_real(1e308),        json_real(-1e308),       json_real(1e99), json_real(-1e99),
        json_real(5e-324), json_integer(0),         json_integer(-3),        json_integer(3), json_real(0.5),
        json_string("1"),  json_integer(INT64_MAX), json_integer(INT64_MIN), json_real(1e14)
    };
    const int n_odd = sizeof odd / sizeof *odd;
    int n = 0;
    for (bool replaced = true; replaced; n++) {
        int at = n;
        json_t *copy = json_deep_copy(both);
        replaced = replace_number(copy, &at, odd[n % n_odd]);
        char *page = render_both(json_object_get(copy, "result"), json_object_get(copy, "speed"));
        lacks(page, "=\"nan");
        lacks(page, ">nan");
        lacks(page, "=\"inf");
        lacks(page, "=\"-inf");
        free(page);
        json_decref(copy);
    }
    ck_assert_int_gt(n, 250);
    for (int k = 0; k < n_odd; k++) {
        json_t *copy = json_deep_copy(both);
        replace_all(copy, odd[k]);
        free(render_both(json_object_get(copy, "result"), json_object_get(copy, "speed")));
        json_decref(copy);
    }
    for (int k = 0; k < n_odd; k++) json_decref(odd[k]);
    json_decref(both);
}
END_TEST

START_TEST(odd_numbers) {
    json_t *root = load();
    json_t *odd[] = {
        json_null(),       json_real(1e308), json_real(-1e308), json_real(1e99),         json_real(-1e99),
        json_real(5e-324), json_integer(0),  json_integer(-3),  json_integer(INT64_MAX), json_integer(INT64_MIN),
        json_string("1"),  json_real(0.5)
    };
    const int n_odd = sizeof odd / sizeof *odd;
    int n = 0;
    for (; n < 2000; n += 7) { /* one place at a time, a seventh of all places */
        int at = n;
        json_t *copy = json_deep_copy(root);
        bool replaced = replace_number(copy, &at, odd[n / 7 % n_odd]);
        if (replaced) {
            char *page = render(copy);
            lacks(page, "=\"nan");
            lacks(page, "=\"inf");
            lacks(page, "=\"-nan");
            lacks(page, "=\"-inf");
            free(page);
        }
        json_decref(copy);
        if (!replaced) break;
    }
    ck_assert_int_gt(n, 500);
    for (int k = 0; k < n_odd; k++) {
        json_t *copy = json_deep_copy(root);
        replace_all(copy, odd[k]);
        free(render(copy));
        json_decref(copy);
    }
    for (int k = 0; k < n_odd; k++) json_decref(odd[k]);
    json_decref(root);
}
END_TEST

/* More layers, rounds, paths, blocks and columns than the page draws. */
START_TEST(more_than_fits) {
    json_t *root = load(), *history = json_array(), *errors = json_array(), *table = json_array(),
           *curve = json_array();
    char text[256];
    for (int i = 0; i < 4000; i++) {
        snprintf(text, sizeof text, "attention*%d,block_%d*%d", i % 90, i % 70, 200);
        json_array_append_new(history, json_pack("{s:s, s:b, s:f}", "path", text, "complete", 1, "objective", i * 0.5));
    }
    for (int i = 0; i < 3000; i++) {
        snprintf(text, sizeof text, "%0100d", i % 300);
        json_array_append_new(
            errors, json_pack("{s:i, s:s, s:f, s:f}", "layer", i % 200, "block", text, "first", 1.0, "last", 0.5));
        json_array_append_new(curve, json_pack("{s:i, s:f}", "step", i, "loss", 3.0 / (i + 1)));
    }
    for (int i = 0; i < 40; i++) {
        json_t *row = json_pack("{s:s, s:{}}", "name", "PostNAS", "tasks");
        for (int k = 0; k < 9; k++) {
            snprintf(text, sizeof text, "task_%d", i * 9 + k);
            json_object_set_new(json_object_get(row, "tasks"), text, json_pack("{s:{s:f}}", "nll", "mean", 0.25));
        }
        json_array_append_new(table, row);
    }
    json_object_set_new(root, "history", history);
    json_object_set_new(root, "local_errors", errors);
    json_object_set_new(root, "table", table);
    json_object_set_new(root, "distill_curve", curve);
    json_object_set_new(root, "path", json_string("jet*2000000000"));
    char *page = render(root);
    holds(page, "0 of 128 layers keep full attention");
    holds(page, "the best 3000 are drawn");
    holds(page, "Each point is the mean of 8 records.");
    free(page);
    json_decref(root);
}
END_TEST

START_TEST(files) {
    char directory[] = "/tmp/postnas-report-XXXXXX", path[PN_PATH_MAX], *data;
    size_t n;
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_ok(pn_path_join(path, directory, "report.html"));
    json_t *root = load(), *list = json_array();
    char *page = render(root);
    ck_ok(pn_report_write(root, NULL, path));
    ck_ok(pn_report_write(root, NULL, path)); /* over an older one */
    ck_ok(pn_file_read(path, 1 << 26, &data, &n));
    ck_assert_str_eq(data, page);
    free(data);
    ck_assert_int_eq(pn_report_write(list, NULL, path), PN_FORMAT);
    ck_assert_int_eq(pn_report_write(NULL, NULL, path), PN_FORMAT);
    ck_ok(pn_file_read(path, 1 << 26, &data, &n)); /* a refused result leaves the old page */
    ck_assert_str_eq(data, page);
    free(data);
    ck_ok(pn_path_join(path, directory, "missing/report.html"));
    ck_assert_int_eq(pn_report_write(root, NULL, path), PN_IO);
    ck_ok(pn_remove_tree(directory));
    free(page);
    json_decref(list);
    json_decref(root);
}
END_TEST

START_TEST(text) {
    char b[PN_PAGE_TEXT], name[PN_PAGE_NAME], input[200];
    ck_assert_str_eq(pn_page_value("accuracy", 0.9965, b), "99.7\xc2\xa0%");
    ck_assert_str_eq(pn_page_value("nll", -0.25, b), "\xe2\x88\x92"
                                                     "0.250");
    ck_assert_str_eq(pn_page_value("nll", 0.0001, b), "0.0001");
    ck_assert_str_eq(pn_page_value("perplexity", 1e99, b), "1e+99");
    ck_assert_str_eq(pn_page_gain("top1", 0.012, b), "+1.2\xc2\xa0points");
    ck_assert_str_eq(pn_page_bytes(67108864, b), "64.0\xc2\xa0MiB");
    ck_assert_str_eq(pn_page_bytes(1000, b), "1000\xc2\xa0"
                                             "bytes");
    ck_assert_str_eq(pn_page_context(262144, b), "256K");
    ck_assert_str_eq(pn_page_context(1000, b), "1000");
    ck_assert_str_eq(pn_page_short("attention", 9, name), "attention");
    ck_assert_str_eq(pn_page_short("attention", 8, name), "attenti\xe2\x80\xa6");
    ck_assert_str_eq(pn_page_short("\xc3\xa9\xc3\xa9\xc3\xa9", 2, name), "\xc3\xa9\xe2\x80\xa6");
    for (size_t n = 50; n < 70; n++) { /* cut at whole characters, and shortening again changes nothing */
        for (size_t first = 0; first < 3; first++) {
            size_t len = 0;
            for (; len < first; len++) input[len] = 'a';
            for (; len < n; len += 2) memcpy(input + len, "\xc3\xa9", 3);
            pn_page_short(input, PN_PAGE_NAME, name);
            json_t *valid = json_string(name);
            ck_assert_msg(valid != NULL, "\"%s\" is not UTF-8", name);
            json_decref(valid);
            char again[PN_PAGE_NAME];
            ck_assert_str_eq(pn_page_short(name, PN_PAGE_NAME, again), name);
            if (strlen(input) < 60) ck_assert_str_eq(name, input);
        }
    }
}
END_TEST

/* Twins in two rooms: which way a metric improves. */
START_TEST(metrics_agree_with_the_search) {
    int n;
    const pn_task_kind_info *kinds = pn_task_kinds(&n);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++)
            if (kinds[i].metrics[k])
                ck_assert_int_eq(pn_page_ascending(kinds[i].metrics[k]), pn_metric_ascending(kinds[i].metrics[k]));
    ck_assert(pn_page_ascending("accuracy@64") && pn_metric_ascending("accuracy@64"));
}
END_TEST

TEST_MAIN("report", checker_can_fail, whole_page, errors_before_training, search_as_a_tree, stages, score_against_state,
          selectors_side_by_side, later_stages, whole_models, stages_or_speeds_alone, labels_of_many,
          parts_of_stages_missing, odd_numbers_of_stages, gates_over_training, numbers_come_from_the_result, training,
          hostile_strings, missing_sections, odd_numbers, more_than_fits, files, text, metrics_agree_with_the_search)
