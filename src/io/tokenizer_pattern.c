/* From Oniguruma, the regex engine behind Hugging Face tokenizers, to PCRE2: the same matches from the same pattern.
 *
 * Where the two differ, the pattern is rewritten:
 *   \s \S       PCRE2 counts U+180E as white space; Unicode's White_Space, and Oniguruma, do not
 *   \w \W       Oniguruma: alphabetic, mark, decimal digit or connector punctuation; PCRE2: letter, number or "_"
 *   \d          with the decimal digits of Unicode 16, as below
 *   \h \v       Oniguruma: a hexadecimal digit; the one character U+000B
 *   \p{L} \p{N} the letters and numbers that Unicode 15 to 16 added are named, since PCRE2 10.42 knows Unicode 14
 *   ^ $         match at every line in Oniguruma: compiled with PCRE2_MULTILINE and newline = LF (tokenizer_split.c)
 * What has no counterpart (set intersection, nested sets, recursion, verbs) is refused by name: a pattern that half
 * works would tokenize differently without a word. */
#include "tokenizer_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct range {
    uint32_t low, high;
} range;

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Unicode White_Space, in order. */
static const range white_space[] = {
    { 0x09, 0x0d },     { 0x20, 0x20 },     { 0x85, 0x85 },     { 0xa0, 0xa0 },     { 0x1680, 0x1680 },
    { 0x2000, 0x200a }, { 0x2028, 0x2029 }, { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 },
};

/* General category L and N in Unicode 16 and unassigned in Unicode 14. */
static const range new_letters[] = {
    { 0x1c89, 0x1c8a },   { 0xa7cb, 0xa7cd },   { 0xa7da, 0xa7dc },   { 0x105c0, 0x105f3 }, { 0x10d4a, 0x10d65 },
    { 0x10d6f, 0x10d85 }, { 0x10ec2, 0x10ec4 }, { 0x1123f, 0x11240 }, { 0x11380, 0x11389 }, { 0x1138b, 0x1138b },
    { 0x1138e, 0x1138e }, { 0x11390, 0x113b5 }, { 0x113b7, 0x113b7 }, { 0x113d1, 0x113d1 }, { 0x113d3, 0x113d3 },
    { 0x11bc0, 0x11be0 }, { 0x11f02, 0x11f02 }, { 0x11f04, 0x11f10 }, { 0x11f12, 0x11f33 }, { 0x1342f, 0x1342f },
    { 0x13441, 0x13446 }, { 0x13460, 0x143fa }, { 0x16100, 0x1611d }, { 0x16d40, 0x16d6c }, { 0x18cff, 0x18cff },
    { 0x1b132, 0x1b132 }, { 0x1b155, 0x1b155 }, { 0x1df25, 0x1df2a }, { 0x1e030, 0x1e06d }, { 0x1e4d0, 0x1e4eb },
    { 0x1e5d0, 0x1e5ed }, { 0x1e5f0, 0x1e5f0 }, { 0x2b739, 0x2b739 }, { 0x2ebf0, 0x2ee5d }, { 0x31350, 0x323af },
};
/* Decimal digits, but for the last row. */
static const range new_numbers[] = {
    { 0x10d40, 0x10d49 }, { 0x116d0, 0x116e3 }, { 0x11bf0, 0x11bf9 }, { 0x11f50, 0x11f59 }, { 0x16130, 0x16139 },
    { 0x16d70, 0x16d79 }, { 0x1ccf0, 0x1ccf9 }, { 0x1e4f0, 0x1e4f9 }, { 0x1e5f1, 0x1e5fa }, { 0x1d2c0, 0x1d2d3 },
};
enum { N_NEW_DIGITS = COUNT(new_numbers) - 1 };
/* Superscripts and fractions of Latin-1, which are word characters to Oniguruma though their like elsewhere are not. */
static const range latin1_numbers[] = { { 0xb2, 0xb3 }, { 0xb9, 0xb9 }, { 0xbc, 0xbe } };
/* Circled and squared Latin letters: symbols by category, alphabetic by property. */
static const range alphabetic_symbols[] = {
    { 0x24b6, 0x24e9 },
    { 0x1f130, 0x1f149 },
    { 0x1f150, 0x1f169 },
    { 0x1f170, 0x1f189 },
};

static bool in_ranges(const range *r, size_t n, uint32_t c) {
    for (size_t i = 0; i < n; i++)
        if (c >= r[i].low && c <= r[i].high) return true;
    return false;
}

bool pn_tok_is_space(uint32_t c) {
    return in_ranges(white_space, COUNT(white_space), c);
}

bool pn_tok_is_number(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t g = utf8proc_category((utf8proc_int32_t)c);
    return g == UTF8PROC_CATEGORY_ND || g == UTF8PROC_CATEGORY_NL || g == UTF8PROC_CATEGORY_NO ||
           (g == UTF8PROC_CATEGORY_CN && in_ranges(new_numbers, COUNT(new_numbers), c));
}

bool pn_tok_is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    case UTF8PROC_CATEGORY_CN: return in_ranges(new_letters, COUNT(new_letters), c);
    default: return c == 0x200c || c == 0x200d || in_ranges(alphabetic_symbols, COUNT(alphabetic_symbols), c);
    }
}

static pn_status put(pn_tok_arena *out, const char *text) {
    return pn_tok_append(out, text, strlen(text));
}

static pn_status put_ranges(pn_tok_arena *out, const range *r, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof text, r[i].low == r[i].high ? "\\x{%x}" : "\\x{%x}-\\x{%x}", r[i].low, r[i].high);
        PN_TRY(put(out, text));
    }
    return PN_OK;
}

/* Everything but the ranges, which are in order. */
static pn_status put_complement(pn_tok_arena *out, const range *r, size_t n) {
    uint32_t low = 0;
    for (size_t i = 0; i <= n; i++) {
        range gap = { low, i < n ? r[i].low - 1 : 0x10ffff };
        PN_TRY(put_ranges(out, &gap, 1));
        if (i < n) low = r[i].high + 1;
    }
    return PN_OK;
}

static pn_status put_word(pn_tok_arena *out) {
    PN_TRY(put(out, "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}"));
    PN_TRY(put_ranges(out, new_letters, COUNT(new_letters)));
    PN_TRY(put_ranges(out, new_numbers, N_NEW_DIGITS));
    PN_TRY(put_ranges(out, latin1_numbers, COUNT(latin1_numbers)));
    return put_ranges(out, alphabetic_symbols, COUNT(alphabetic_symbols));
}

typedef struct reader {
    const char *where, *pattern;
    size_t n, at;
    bool in_class;
    pn_tok_arena *out;
} reader;

static pn_status refuse(const reader *r, const char *what) {
    PN_FAIL(PN_UNSUPPORTED, "%s: %s at byte %zu of the pattern %.120s: this regex syntax is not supported", r->where,
            what, r->at, r->pattern);
}

/* A general category such as \p{L}: [\p{L}...] with what newer Unicode adds. */
static pn_status read_property(reader *r) {
    bool negated = r->pattern[r->at + 1] == 'P';
    size_t name = r->at + 2;
    if (r->pattern[name] != '{') return refuse(r, "\\p without {name}");
    name++;
    if (r->pattern[name] == '^') {
        negated = !negated;
        name++;
    }
    size_t end = name;
    while (end < r->n && r->pattern[end] != '}') end++;
    if (end == r->n || end == name || end - name > 40) return refuse(r, "\\p{ without its }");
    for (size_t i = name; i < end; i++)
        if (!isalnum((unsigned char)r->pattern[i]) && r->pattern[i] != '_') return refuse(r, "a name in \\p{}");
    const range *more = NULL;
    size_t n_more = 0;
    if (end - name == 1 && r->pattern[name] == 'L') more = new_letters, n_more = COUNT(new_letters);
    if (end - name == 1 && r->pattern[name] == 'N') more = new_numbers, n_more = COUNT(new_numbers);
    if (more && negated && r->in_class) return refuse(r, "a negated class inside a set");
    char property[64];
    bool outer = more && !r->in_class; /* the set that holds the property and the ranges; it takes the negation */
    snprintf(property, sizeof property, "\\%c{%.*s}", negated && !outer ? 'P' : 'p', (int)(end - name),
             r->pattern + name);
    if (outer) PN_TRY(put(r->out, negated ? "[^" : "["));
    PN_TRY(put(r->out, property));
    PN_TRY(put_ranges(r->out, more, n_more));
    if (outer) PN_TRY(put(r->out, "]"));
    r->at = end + 1;
    return PN_OK;
}

static pn_status read_escape(reader *r) {
    if (r->at + 1 >= r->n) return refuse(r, "a backslash at the end");
    char c = r->pattern[r->at + 1];
    bool set = false; /* a class of characters: a "-" after it is a hyphen */
    switch (c) {
    case 's':
    case 'S':
        if (r->in_class && c == 's') PN_TRY(put_ranges(r->out, white_space, COUNT(white_space)));
        if (r->in_class && c == 'S') PN_TRY(put_complement(r->out, white_space, COUNT(white_space)));
        if (!r->in_class) {
            PN_TRY(put(r->out, c == 's' ? "[" : "[^"));
            PN_TRY(put_ranges(r->out, white_space, COUNT(white_space)));
            PN_TRY(put(r->out, "]"));
        }
        r->at += 2;
        set = true;
        break;
    case 'w':
    case 'W':
        if (r->in_class && c == 'W') return refuse(r, "\\W inside a set");
        if (!r->in_class) PN_TRY(put(r->out, c == 'w' ? "[" : "[^"));
        PN_TRY(put_word(r->out));
        if (!r->in_class) PN_TRY(put(r->out, "]"));
        r->at += 2;
        set = true;
        break;
    case 'h':
    case 'H':
        if (r->in_class && c == 'H') return refuse(r, "\\H inside a set");
        PN_TRY(put(r->out, r->in_class ? "0-9a-fA-F" : c == 'h' ? "[0-9a-fA-F]" : "[^0-9a-fA-F]"));
        r->at += 2;
        set = true;
        break;
    case 'p':
    case 'P':
        PN_TRY(read_property(r));
        set = true;
        break;
    case 'd':
    case 'D':
        if (r->in_class && c == 'D') return refuse(r, "\\D inside a set");
        if (!r->in_class) PN_TRY(put(r->out, c == 'd' ? "[" : "[^"));
        PN_TRY(put(r->out, "\\p{Nd}"));
        PN_TRY(put_ranges(r->out, new_numbers, N_NEW_DIGITS));
        if (!r->in_class) PN_TRY(put(r->out, "]"));
        r->at += 2;
        set = true;
        break;
    case 'v':
        PN_TRY(put(r->out, "\\x{b}"));
        r->at += 2;
        break;
    case 'u': {
        char text[16];
        size_t i = 0;
        while (i < 4 && r->at + 2 + i < r->n && isxdigit((unsigned char)r->pattern[r->at + 2 + i])) i++;
        if (i < 4) return refuse(r, "\\u without four hexadecimal digits");
        snprintf(text, sizeof text, "\\x{%.4s}", r->pattern + r->at + 2);
        PN_TRY(put(r->out, text));
        r->at += 6;
        break;
    }
    case 'x':
        if (r->at + 2 < r->n && r->pattern[r->at + 2] == '{') {
            size_t n_digits = strspn(r->pattern + r->at + 3, "0123456789abcdefABCDEF"), len = n_digits + 4;
            if (!n_digits || r->pattern[r->at + len - 1] != '}') return refuse(r, "\\x{ without its number and }");
            PN_TRY(pn_tok_append(r->out, r->pattern + r->at, len));
            r->at += len;
            break;
        }
        PN_TRY(put(r->out, "\\x"));
        r->at += 2;
        break;
    default:
        if (isalnum((unsigned char)c) && !strchr(r->in_class ? "tnrfae" : "tnrfaebBAzZ", c))
            return refuse(r, "an escape");
        PN_TRY(pn_tok_append(r->out, r->pattern + r->at, 2));
        r->at += 2;
        break;
    }
    if (set && r->in_class && r->at + 1 < r->n && r->pattern[r->at] == '-') {
        PN_TRY(put(r->out, "\\-"));
        r->at++;
    }
    return PN_OK;
}

static bool at_text(const reader *r, const char *text) {
    return strncmp(r->pattern + r->at, text, strlen(text)) == 0; /* the pattern ends in NUL */
}

static pn_status read_one(reader *r) {
    char c = r->pattern[r->at];
    if (c == '\\') return read_escape(r);
    if (r->in_class) {
        if (at_text(r, "&&")) return refuse(r, "set intersection");
        if (at_text(r, "[:")) { /* [:alpha:] and nothing else: what is copied is not looked at again */
            const char *name = r->pattern + r->at + 2 + (r->pattern[r->at + 2] == '^');
            size_t n_name = strspn(name, "abcdefghijklmnopqrstuvwxyz");
            if (!n_name || strncmp(name + n_name, ":]", 2) != 0) return refuse(r, "a set in a set");
            size_t len = (size_t)(name + n_name + 2 - (r->pattern + r->at));
            PN_TRY(pn_tok_append(r->out, r->pattern + r->at, len));
            r->at += len;
            return PN_OK;
        }
        if (c == '[') return refuse(r, "a set in a set");
        if (c == ']') r->in_class = false;
    } else if (c == '[') {
        r->in_class = true;
        size_t len = at_text(r, "[^") ? 2 : 1;
        if (r->at + len < r->n && r->pattern[r->at + len] == ']') return refuse(r, "a set that begins with ]");
        PN_TRY(pn_tok_append(r->out, r->pattern + r->at, len));
        r->at += len;
        return PN_OK;
    } else if (at_text(r, "(*")) {
        return refuse(r, "(*");
    } else if (at_text(r, "(?")) {
        size_t i = r->at + 2;
        if (r->pattern[i] == 'i' || r->pattern[i] == '-') {
            while (r->pattern[i] == 'i' || r->pattern[i] == '-') i++;
            if (r->pattern[i] != ':' && r->pattern[i] != ')') return refuse(r, "an inline option");
        } else if (r->pattern[i] == '\0' || !strchr(":=!><", r->pattern[i])) {
            return refuse(r, "a group");
        }
    } else if (at_text(r, "}+")) {
        return refuse(r, "an interval followed by +");
    } else if (at_text(r, "{,")) {
        PN_TRY(put(r->out, "{0,"));
        r->at += 2;
        return PN_OK;
    }
    PN_TRY(pn_tok_append(r->out, &c, 1));
    r->at++;
    return PN_OK;
}

static pn_status escape_literal(const char *text, pn_tok_arena *out) {
    for (const char *c = text; *c; c++) {
        if (ispunct((unsigned char)*c)) PN_TRY(put(out, "\\"));
        PN_TRY(pn_tok_append(out, c, 1));
    }
    return PN_OK;
}

pn_status pn_tok_translate(const char *where, const char *pattern, bool literal, char **out) {
    *out = NULL;
    pn_tok_arena text = { 0 };
    reader r = { .where = where, .pattern = pattern, .n = strlen(pattern), .out = &text };
    pn_status s = PN_OK;
    if (literal) s = escape_literal(pattern, &text);
    while (!literal && s == PN_OK && r.at < r.n) s = read_one(&r);
    if (s == PN_OK && r.in_class) s = refuse(&r, "a set without its ]");
    if (s == PN_OK) s = pn_tok_append(&text, "", 1);
    if (s != PN_OK) {
        free(text.data);
        return pn_trace_at(__FILE__, __LINE__, s, "translate the pattern");
    }
    *out = text.data;
    return PN_OK;
}
