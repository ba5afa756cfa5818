#include "options.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const kind_names[] = {
    [PN_OPTION_BOOL] = "true or false",
    [PN_OPTION_INT] = "a whole number",
    [PN_OPTION_FLOAT] = "a number",
    [PN_OPTION_STRING] = "text",
    [PN_OPTION_ENUM] = "one of its names",
    [PN_OPTION_INTS] = "a list of whole numbers",
    [PN_OPTION_STRINGS] = "a list",
    [PN_OPTION_SECTION] = "a section",
    [PN_OPTION_RAMP] = "a number, or a list of the first and the last,",
};

const pn_option *pn_option_find(const pn_option *table, const char *name) {
    for (const pn_option *o = table; o && o->name; o++)
        if (!strcmp(o->name, name)) return o;
    return NULL;
}

int pn_edit_distance(const char *a, const char *b) {
    enum { MAX = 64 };
    int previous[MAX + 1], current[MAX + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > MAX || m > MAX) return MAX;
    for (size_t j = 0; j <= m; j++) previous[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        current[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int change = previous[j - 1] + (a[i - 1] != b[j - 1]);
            int insert = current[j - 1] + 1, remove = previous[j] + 1;
            int best = change < insert ? change : insert;
            current[j] = best < remove ? best : remove;
        }
        memcpy(previous, current, sizeof previous);
    }
    return previous[m];
}

/* How far a misspelling may lie from a word: a letter or two of a short one, never more than three. */
static int tolerated(const char *word) {
    int n = 1 + (int)strlen(word) / 3;
    return n < 3 ? n : 3;
}

const char *pn_nearest(const char *name, const char *const *names, int n) {
    const char *best = NULL;
    int distance = 0;
    for (int i = 0; i < n; i++) {
        int d = pn_edit_distance(name, names[i]);
        if (d <= tolerated(names[i]) && (!best || d < distance)) {
            distance = d;
            best = names[i];
        }
    }
    for (int i = 0; i < n && !best && strlen(name) >= 3; i++) /* "window" for window_size */
        if (!strncmp(names[i], name, strlen(name))) best = names[i];
    return best;
}

const char *pn_option_nearest(const pn_option *table, const char *name) {
    enum { MOST = 256 };
    const char *names[MOST];
    int n = 0;
    for (const pn_option *o = table; o && o->name && n < MOST; o++) names[n++] = o->name;
    return pn_nearest(name, names, n);
}

static const double open_end = 9e18; /* a bound beyond it, INT64_MAX or INFINITY, does not bind */

static bool closed(const pn_option *row) {
    return row->min > -open_end && row->max < open_end;
}

static const char *bound_text(double bound, char *buffer, size_t n) {
    if (bound == floor(bound) && fabs(bound) < 1e15)
        snprintf(buffer, n, "%.0f", bound);
    else
        pn_double_text(bound, buffer, n);
    return buffer;
}

/* "in 1 .. 100", "at least 1", "at most 5", or nothing when neither end binds. */
static const char *bounds(const pn_option *row, char *buffer, size_t n) {
    char min[32], max[32];
    bound_text(row->min, min, sizeof min);
    bound_text(row->max, max, sizeof max);
    buffer[0] = '\0';
    if (closed(row))
        snprintf(buffer, n, "in %s .. %s", min, max);
    else if (row->min > -open_end)
        snprintf(buffer, n, "at least %s", min);
    else if (row->max < open_end)
        snprintf(buffer, n, "at most %s", max);
    return buffer;
}

/* A whole number, also as people write budgets: 100_000 (YAML 1.1), 1e6 and 2.5e6 (exact in a double). */
static bool whole_number(const char *text, int64_t *out) {
    char digits[64], *end;
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '_' && p > text) continue;
        if (!strchr("0123456789+-.eE", *p) || n + 1 == sizeof digits) return false;
        digits[n++] = *p;
    }
    digits[n] = '\0';
    errno = 0;
    *out = strtoll(digits, &end, 10);
    if (n && !*end) return !errno;
    double d = strtod(digits, &end);
    if (!n || *end || d != floor(d) || fabs(d) > 9e15) return false;
    *out = (int64_t)d;
    return strpbrk(digits, "eE") != NULL; /* 3.0 is a number, not a whole one */
}

static pn_status parse_int(const pn_option *row, const char *where, const char *text, int64_t *out) {
    int64_t v;
    char range[96];
    if (row->zero && !strcmp(text, row->zero)) {
        *out = 0;
        return PN_OK;
    }
    PN_CHECK(whole_number(text, &v), PN_USAGE, "%s: %s is \"%s\"; it must be a whole number%s%s", where, row->name,
             text, row->zero ? " or " : "", row->zero ? row->zero : "");
    PN_CHECK((double)v >= row->min && (double)v <= row->max, PN_USAGE, "%s: %s is %lld; it must %s %s", where,
             row->name, (long long)v, closed(row) ? "lie" : "be", bounds(row, range, sizeof range));
    *out = v;
    return PN_OK;
}

static pn_status parse_float(const pn_option *row, const char *where, const char *text, double *out) {
    char *end;
    double v = strtod(text, &end);
    PN_CHECK(*text && !*end && isfinite(v), PN_USAGE, "%s: %s is \"%s\"; it must be a number", where, row->name, text);
    char given[32], range[96];
    PN_CHECK(v >= row->min && v <= row->max, PN_USAGE, "%s: %s is %s; it must %s %s", where, row->name,
             pn_double_text(v, given, sizeof given), closed(row) ? "lie" : "be", bounds(row, range, sizeof range));
    *out = v;
    return PN_OK;
}

/* One number is both ends. */
static pn_status parse_ramp(const pn_option *row, const char *where, const char *text, int64_t i, pn_ramp *out) {
    PN_CHECK(i < 2, PN_USAGE, "%s: %s is a number, or a list of two: the first and the last one", where, row->name);
    PN_TRY(parse_float(row, where, text, &out->to));
    if (i == 0) out->from = out->to;
    return PN_OK;
}

static pn_status parse_enum(const pn_option *row, const char *where, const char *text, int64_t *out) {
    char all[512] = "";
    int n = 0;
    for (; row->choices[n]; n++) {
        if (!strcmp(row->choices[n], text)) {
            *out = n;
            return PN_OK;
        }
        size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, "%s%s", n ? ", " : "", row->choices[n]);
    }
    const char *near = pn_nearest(text, row->choices, n);
    PN_FAIL(PN_USAGE, "%s: %s is \"%s\"%s%s%s it must be one of: %s", where, row->name, text,
            near ? "; did you mean " : "", near ? near : "", near ? "?" : ";", all);
}

static bool one_of(const char *text, const char *a, const char *b, const char *c) {
    return !strcasecmp(text, a) || !strcasecmp(text, b) || !strcasecmp(text, c);
}

pn_status pn_option_parse(const pn_option *row, const char *where, const char *text, int64_t i, void *out) {
    char *field = (char *)out + row->offset;
    switch (row->kind) {
    case PN_OPTION_BOOL:
        if (one_of(text, "true", "yes", "on"))
            *(bool *)(void *)field = true;
        else if (one_of(text, "false", "no", "off"))
            *(bool *)(void *)field = false;
        else
            PN_FAIL(PN_USAGE, "%s: %s is \"%s\"; it must be true or false", where, row->name, text);
        return PN_OK;
    case PN_OPTION_INT: return parse_int(row, where, text, (int64_t *)(void *)field);
    case PN_OPTION_FLOAT: return parse_float(row, where, text, (double *)(void *)field);
    case PN_OPTION_RAMP: return parse_ramp(row, where, text, i, (pn_ramp *)(void *)field);
    case PN_OPTION_STRING: *(const char **)(void *)field = text; return PN_OK;
    case PN_OPTION_ENUM: return parse_enum(row, where, text, (int64_t *)(void *)field);
    case PN_OPTION_INTS:
    case PN_OPTION_STRINGS:
        PN_CHECK(i < PN_LIST_MAX, PN_USAGE, "%s: %s has more than %d items", where, row->name, PN_LIST_MAX);
        *(int64_t *)(void *)field = i + 1; /* both list structs start with n */
        if (row->kind == PN_OPTION_INTS) return parse_int(row, where, text, &((pn_int_list *)(void *)field)->item[i]);
        ((pn_string_list *)(void *)field)->item[i] = text;
        return PN_OK;
    case PN_OPTION_SECTION: break;
    }
    PN_FAIL(PN_USAGE, "%s: %s is %s, not a value", where, row->name, kind_names[row->kind]);
}

/* Words of default lists live as long as the program: a table is static, and so are its defaults. */
static const char *keep(const char *word) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct kept {
        struct kept *next;
        char word[];
    } * all;
    size_t n = strlen(word) + 1;
    pthread_mutex_lock(&lock);
    struct kept *k = all;
    while (k && strcmp(k->word, word)) k = k->next;
    if (!k && (k = malloc(sizeof *k + n))) {
        memcpy(k->word, word, n);
        k->next = all;
        all = k;
    }
    pthread_mutex_unlock(&lock);
    return k ? k->word : NULL;
}

static pn_status default_list(const pn_option *row, void *out) {
    const char *p = row->def + 1; /* "[a, b]" */
    *(int64_t *)(void *)((char *)out + row->offset) = 0;
    PN_ASSERT(row->def[0] == '[' && p[strcspn(p, "]")] == ']');
    for (int64_t i = 0; *p != ']'; i++) {
        char item[64];
        p += strspn(p, " ");
        size_t len = strcspn(p, ",]");
        PN_ASSERT(len > 0 && len < sizeof item);
        memcpy(item, p, len);
        item[len] = '\0';
        const char *text = row->kind == PN_OPTION_STRINGS ? keep(item) : item;
        PN_CHECK(text, PN_MEMORY, "out of memory");
        PN_TRY(pn_option_parse(row, "default", text, i, out));
        p += len;
        if (*p == ',') p++;
    }
    return PN_OK;
}

pn_status pn_options_defaults(const pn_option *table, void *out) {
    for (const pn_option *o = table; o && o->name; o++) {
        if (o->kind == PN_OPTION_SECTION) continue;
        bool list = o->kind == PN_OPTION_INTS || o->kind == PN_OPTION_STRINGS;
        char *field = (char *)out + o->offset;
        if (!o->def && list)
            *(int64_t *)(void *)field = 0;
        else if (!o->def)
            *(const char **)(void *)field = NULL;
        else if (list)
            PN_TRY(default_list(o, out));
        else
            PN_TRY(pn_option_parse(o, "default", o->def, 0, out));
    }
    return PN_OK;
}

static bool plain_yaml(const char *s) {
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        if (!strcmp(s, nulls[i])) return false;
    if (*s == '-' && !(s[1] >= '0' && s[1] <= '9')) return false;
    for (const char *c = s; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || strchr(":#{}[],&*!|>'\"%@`\\?", *c)) return false;
    return true;
}

/* Characters YAML takes only as escapes: C1 controls, line separators, the byte order mark; 0 for others. */
static unsigned escaped(const unsigned char *s) {
    if (s[0] == 0xc2 && s[1] < 0xa0) return s[1];
    if (s[0] == 0xe2 && s[1] == 0x80 && (s[2] & 0xfe) == 0xa8) return 0x2000u + (s[2] & 0x3fu);
    if (s[0] == 0xef && s[1] == 0xbb && s[2] == 0xbf) return 0xfeff;
    if (s[0] == 0xef && s[1] == 0xbf && s[2] >= 0xbe) return 0xffc0u + (s[2] & 0x3fu);
    return 0;
}

void pn_yaml_string(const char *text, pn_buf *out) {
    if (!text) {
        pn_buf_char(out, '~');
        return;
    }
    if (plain_yaml(text)) {
        pn_buf_text(out, text);
        return;
    }
    pn_buf_char(out, '"');
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        unsigned code = escaped(s);
        if (code) {
            pn_buf_printf(out, "\\u%04x", code);
            s += code < 0x800 ? 1 : 2;
        } else if (*s == '\n') {
            pn_buf_text(out, "\\n");
        } else if (*s == '\t') {
            pn_buf_text(out, "\\t");
        } else if (*s < ' ' || *s == 0x7f) {
            pn_buf_printf(out, "\\x%02x", *s);
        } else {
            if (*s == '"' || *s == '\\') pn_buf_char(out, '\\');
            pn_buf_char(out, (char)*s);
        }
    }
    pn_buf_char(out, '"');
}

static void number(double v, pn_buf *out) {
    char text[32];
    pn_buf_text(out, pn_double_text(v, text, sizeof text));
}

static void ramp_text(const pn_ramp *r, pn_buf *out) {
    const bool constant = r->from == r->to;
    if (!constant) pn_buf_char(out, '[');
    number(r->from, out);
    if (constant) return;
    pn_buf_text(out, ", ");
    number(r->to, out);
    pn_buf_char(out, ']');
}

void pn_option_text(const pn_option *row, const void *in, pn_buf *out) {
    const void *field = (const char *)in + row->offset;
    const pn_int_list *ints = field;
    const pn_string_list *strings = field;
    switch (row->kind) {
    case PN_OPTION_BOOL: pn_buf_text(out, *(const bool *)field ? "true" : "false"); break;
    case PN_OPTION_INT:
        if (row->zero && !*(const int64_t *)field)
            pn_buf_text(out, row->zero);
        else
            pn_buf_printf(out, "%lld", (long long)*(const int64_t *)field);
        break;
    case PN_OPTION_FLOAT: number(*(const double *)field, out); break;
    case PN_OPTION_RAMP: ramp_text(field, out); break;
    case PN_OPTION_STRING: pn_yaml_string(*(const char *const *)field, out); break;
    case PN_OPTION_ENUM: pn_yaml_string(row->choices[*(const int64_t *)field], out); break;
    case PN_OPTION_INTS:
        pn_buf_char(out, '[');
        for (int64_t i = 0; i < ints->n; i++) pn_buf_printf(out, "%s%lld", i ? ", " : "", (long long)ints->item[i]);
        pn_buf_char(out, ']');
        break;
    case PN_OPTION_STRINGS:
        pn_buf_char(out, '[');
        for (int64_t i = 0; i < strings->n; i++) {
            if (i) pn_buf_text(out, ", ");
            pn_yaml_string(strings->item[i], out);
        }
        pn_buf_char(out, ']');
        break;
    case PN_OPTION_SECTION: break;
    }
}

void pn_option_type_text(const pn_option *row, pn_buf *out) {
    char range[96] = "";
    if (row->kind == PN_OPTION_INT || row->kind == PN_OPTION_FLOAT || row->kind == PN_OPTION_RAMP ||
        row->kind == PN_OPTION_INTS)
        bounds(row, range, sizeof range);
    pn_buf_printf(out, "%s%s%s", kind_names[row->kind], *range ? " " : "", range);
    if (row->zero) pn_buf_printf(out, ", or %s", row->zero);
    for (int i = 0; row->kind == PN_OPTION_ENUM && row->choices[i]; i++)
        pn_buf_printf(out, "%s%s", i ? " | " : ": ", row->choices[i]);
}

void pn_option_default_text(const pn_option *row, pn_buf *out) {
    if (!row->def)
        pn_buf_text(out, "none");
    else if (row->kind == PN_OPTION_STRING)
        pn_yaml_string(row->def, out);
    else
        pn_buf_text(out, row->def);
}

void pn_options_help(const pn_option *table, int indent, FILE *out) {
    pn_buf text = { 0 };
    for (const pn_option *o = table; o && o->name; o++) {
        fprintf(out, "%*s%-24s %s\n", indent, "", o->name, o->help ? o->help : "");
        if (o->kind == PN_OPTION_SECTION) continue;
        pn_buf_clear(&text);
        pn_option_type_text(o, &text);
        pn_buf_text(&text, "; default ");
        pn_option_default_text(o, &text);
        if (o->example) pn_buf_printf(&text, "; for example %s", o->example);
        fprintf(out, "%*s%-24s (%s)\n", indent, "", "", pn_buf_string(&text));
    }
    pn_buf_free(&text);
}
