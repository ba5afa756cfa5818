#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {
    [PN_OPTION_BOOL] = "true or false",    [PN_OPTION_INT] = "a whole number",
    [PN_OPTION_FLOAT] = "a number",        [PN_OPTION_STRING] = "text",
    [PN_OPTION_ENUM] = "one of its names", [PN_OPTION_INTS] = "a list of whole numbers",
    [PN_OPTION_STRINGS] = "a list",        [PN_OPTION_SECTION] = "a section",
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
    return best;
}

const char *pn_option_nearest(const pn_option *table, const char *name) {
    enum { MOST = 256 };
    const char *names[MOST];
    int n = 0;
    for (const pn_option *o = table; o && o->name && n < MOST; o++) names[n++] = o->name;
    return pn_nearest(name, names, n);
}

static pn_status parse_int(const pn_option *row, const char *where, const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    /* 1e6 and 100_000 are what people write for budgets: the first is exact in double, the second is YAML 1.1. */
    if (*end && end != text) {
        char digits[64];
        size_t n = 0;
        for (const char *p = text; *p && n + 1 < sizeof digits; p++)
            if (*p != '_') digits[n++] = *p;
        digits[n] = '\0';
        double d = strtod(digits, &end);
        if (!*end && d == floor(d) && fabs(d) < 9e15)
            v = (long long)d;
        else
            end = digits;
    }
    PN_CHECK(*text && !*end && !errno, PN_USAGE, "%s: %s is \"%s\"; it must be a whole number", where, row->name, text);
    PN_CHECK((double)v >= row->min && (double)v <= row->max, PN_USAGE, "%s: %s is %lld; it must lie in %.15g .. %.15g",
             where, row->name, v, row->min, row->max);
    *out = v;
    return PN_OK;
}

static pn_status parse_float(const pn_option *row, const char *where, const char *text, double *out) {
    char *end;
    double v = strtod(text, &end);
    PN_CHECK(*text && !*end && isfinite(v), PN_USAGE, "%s: %s is \"%s\"; it must be a number", where, row->name, text);
    PN_CHECK(v >= row->min && v <= row->max, PN_USAGE, "%s: %s is %.15g; it must lie in %.15g .. %.15g", where,
             row->name, v, row->min, row->max);
    *out = v;
    return PN_OK;
}

static pn_status parse_enum(const pn_option *row, const char *where, const char *text, int64_t *out) {
    char all[256] = "";
    for (int i = 0; row->choices[i]; i++) {
        if (!strcmp(row->choices[i], text)) {
            *out = i;
            return PN_OK;
        }
        size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", row->choices[i]);
    }
    PN_FAIL(PN_USAGE, "%s: %s is \"%s\"; it must be one of: %s", where, row->name, text, all);
}

pn_status pn_option_parse(const pn_option *row, const char *where, const char *text, int64_t i, void *out) {
    char *field = (char *)out + row->offset;
    switch (row->kind) {
    case PN_OPTION_BOOL:
        if (!strcmp(text, "true") || !strcmp(text, "yes") || !strcmp(text, "on"))
            *(bool *)(void *)field = true;
        else if (!strcmp(text, "false") || !strcmp(text, "no") || !strcmp(text, "off"))
            *(bool *)(void *)field = false;
        else
            PN_FAIL(PN_USAGE, "%s: %s is \"%s\"; it must be true or false", where, row->name, text);
        return PN_OK;
    case PN_OPTION_INT: return parse_int(row, where, text, (int64_t *)(void *)field);
    case PN_OPTION_FLOAT: return parse_float(row, where, text, (double *)(void *)field);
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

static pn_status default_list(const pn_option *row, void *out) {
    /* Default lists are lists of whole numbers or of plain words held in static storage: split a copy for numbers only.
     */
    const char *p = row->def + 1;
    char *field = (char *)out + row->offset;
    *(int64_t *)(void *)field = 0;
    for (int64_t i = 0; *p && *p != ']'; i++) {
        size_t len = strcspn(p, ",]");
        char item[64];
        while (len && *p == ' ') p++, len--;
        PN_ASSERT(len < sizeof item && row->kind == PN_OPTION_INTS);
        memcpy(item, p, len);
        item[len] = '\0';
        PN_TRY(pn_option_parse(row, "default", item, i, out));
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

/* A string that YAML would read back as something else is quoted. */
static void quote(const char *s, char *buffer, size_t n) {
    bool plain = *s != '\0' && !strpbrk(s, ":#{}[],&*!|>'\"%@`\n\t\\ ") && *s != '-' && *s != '?';
    size_t len = 0;
    if (plain) {
        snprintf(buffer, n, "%s", s);
        return;
    }
    buffer[len++] = '"';
    for (; *s && len + 4 < n; s++) {
        if (*s == '\n')
            buffer[len++] = '\\', buffer[len++] = 'n';
        else if (*s == '\t')
            buffer[len++] = '\\', buffer[len++] = 't';
        else {
            if (*s == '"' || *s == '\\') buffer[len++] = '\\';
            buffer[len++] = *s;
        }
    }
    buffer[len++] = '"';
    buffer[len] = '\0';
}

/* The shortest decimal that reads back as the same double. */
static void number(double v, char *buffer, size_t n) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buffer, n, "%.*g", digits, v);
        if (strtod(buffer, NULL) == v) return;
    }
}

const char *pn_option_text(const pn_option *row, const void *in, char *buffer, size_t n) {
    const char *field = (const char *)in + row->offset;
    PN_ASSERT(n >= 64);
    buffer[0] = '\0';
    switch (row->kind) {
    case PN_OPTION_BOOL: snprintf(buffer, n, "%s", *(const bool *)(const void *)field ? "true" : "false"); break;
    case PN_OPTION_INT: snprintf(buffer, n, "%lld", (long long)*(const int64_t *)(const void *)field); break;
    case PN_OPTION_FLOAT: number(*(const double *)(const void *)field, buffer, n); break;
    case PN_OPTION_STRING: {
        const char *s = *(const char *const *)(const void *)field;
        if (s)
            quote(s, buffer, n);
        else
            snprintf(buffer, n, "~");
        break;
    }
    case PN_OPTION_ENUM: snprintf(buffer, n, "%s", row->choices[*(const int64_t *)(const void *)field]); break;
    case PN_OPTION_INTS: {
        const pn_int_list *l = (const void *)field;
        size_t len = (size_t)snprintf(buffer, n, "[");
        for (int64_t i = 0; i < l->n && len + 32 < n; i++)
            len += (size_t)snprintf(buffer + len, n - len, "%s%lld", i ? ", " : "", (long long)l->item[i]);
        snprintf(buffer + len, n - len, "]");
        break;
    }
    case PN_OPTION_STRINGS: {
        const pn_string_list *l = (const void *)field;
        size_t len = (size_t)snprintf(buffer, n, "[");
        for (int64_t i = 0; i < l->n && len + 8 < n; i++) {
            if (i) len += (size_t)snprintf(buffer + len, n - len, ", ");
            quote(l->item[i], buffer + len, n - len - 2);
            len += strlen(buffer + len);
        }
        snprintf(buffer + len, n - len, "]");
        break;
    }
    case PN_OPTION_SECTION: break;
    }
    return buffer;
}

void pn_options_help(const pn_option *table, int indent, FILE *out) {
    for (const pn_option *o = table; o && o->name; o++) {
        char bounds[256] = "";
        if (o->kind == PN_OPTION_INT || o->kind == PN_OPTION_FLOAT || o->kind == PN_OPTION_INTS)
            snprintf(bounds, sizeof bounds, ", %.15g .. %.15g", o->min, o->max);
        for (int i = 0; o->kind == PN_OPTION_ENUM && o->choices[i]; i++) {
            size_t len = strlen(bounds);
            snprintf(bounds + len, sizeof bounds - len, "%s%s", i ? " | " : ": ", o->choices[i]);
        }
        fprintf(out, "%*s%-24s %s\n%*s%-24s (%s%s; default %s)\n", indent, "", o->name, o->help, indent, "", "",
                kind_names[o->kind], bounds, o->def ? o->def : "none");
    }
}
