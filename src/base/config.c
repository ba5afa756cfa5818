#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "files.h"

enum { MAX_DEPTH = 16, MAX_TABLES = 16, MAX_KEYS = 512, MAX_BYTES = 1 << 20 };

static const char by_default[] = "default", by_set[] = "--set"; /* origins, compared by address */

typedef enum node_kind { SCALAR, MAP, LIST } node_kind;

typedef struct node {
    node_kind kind;
    char *key;          /* in a map; NULL otherwise */
    char *text;         /* scalar */
    struct node **item; /* map values, list elements */
    int n, cap;
    long line;          /* 0: not from the file */
    const char *origin; /* by_set, by_default, or NULL: the file */
    bool used;
    const pn_option *table[MAX_TABLES]; /* which tables read this section */
    int n_tables;
} node;

struct pn_config {
    char *name;
    node *root;
    char where[512];
    const char *keys[MAX_KEYS];
};

/* ---- tree ---- */

static void node_free(node *n) {
    if (!n) return;
    for (int i = 0; i < n->n; i++) node_free(n->item[i]);
    free(n->item);
    free(n->key);
    free(n->text);
    free(n);
}

static node *node_new(node_kind kind, long line, const char *origin) {
    node *n = calloc(1, sizeof *n);
    if (n) *n = (node){ .kind = kind, .line = line, .origin = origin };
    return n;
}

/* Takes child over, also on failure. */
static pn_status node_add(node *parent, node *child) {
    if (parent->n == parent->cap) {
        int cap = parent->cap ? 2 * parent->cap : 8;
        node **grown = realloc(parent->item, (size_t)cap * sizeof(node *));
        if (!grown) {
            node_free(child);
            PN_FAIL(PN_MEMORY, "out of memory");
        }
        parent->item = grown;
        parent->cap = cap;
    }
    parent->item[parent->n++] = child;
    return PN_OK;
}

static node *map_get(const node *map, const char *key, size_t len) {
    for (int i = 0; map && map->kind == MAP && i < map->n; i++)
        if (strlen(map->item[i]->key) == len && !memcmp(map->item[i]->key, key, len)) return map->item[i];
    return NULL;
}

/* The element of a list named by the piece of a path, NULL when the piece is no index of it. */
static node *list_get(const node *list, const char *piece, size_t len) {
    int index = 0;
    for (size_t i = 0; i < len; i++) {
        if (piece[i] < '0' || piece[i] > '9' || index >= list->n) return NULL;
        index = 10 * index + (piece[i] - '0');
    }
    return len && index < list->n ? list->item[index] : NULL;
}

static node *child(const node *at, const char *piece, size_t len) {
    return at->kind == LIST ? list_get(at, piece, len) : map_get(at, piece, len);
}

static node *find(const pn_config *c, const char *path) {
    node *at = c->root;
    while (at && *path) {
        size_t len = strcspn(path, ".");
        at = child(at, path, len);
        path += len;
        if (*path == '.') path++;
    }
    return at;
}

/* Says nothing: "key:", "key: ~". */
static bool is_null(const node *n) {
    return n->kind == SCALAR && !n->text;
}

/* Paths are dotted and printed without quotes, so a key is one word. */
static bool is_word(const char *key, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!((key[i] >= 'a' && key[i] <= 'z') || (key[i] >= 'A' && key[i] <= 'Z') ||
              (key[i] >= '0' && key[i] <= '9') || key[i] == '_' || key[i] == '-'))
            return false;
    return len > 0 && len < 64;
}

/* A mapping with a key, owned by the parent. */
static pn_status add_section(node *parent, const char *key, size_t len, const char *origin, node **out) {
    node *fresh = node_new(MAP, 0, origin);
    PN_CHECK(fresh, PN_MEMORY, "out of memory");
    fresh->key = strndup(key, len);
    if (!fresh->key) {
        node_free(fresh);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    PN_TRY(node_add(parent, fresh));
    *out = fresh;
    return PN_OK;
}

/* ---- YAML events ---- */

typedef struct reader {
    yaml_parser_t parser;
    const char *name, *origin, *text;
    size_t n_bytes;
    char place[400];
} reader;

/* "file:line", or the assignment alone. */
static const char *place(reader *r, size_t line) {
    if (r->origin == by_set)
        snprintf(r->place, sizeof r->place, "%.399s", r->name);
    else
        snprintf(r->place, sizeof r->place, "%.370s:%zu", r->name, line);
    return r->place;
}

/* Of broken characters libyaml knows the byte only. */
static size_t problem_line(const reader *r) {
    if (r->parser.error != YAML_READER_ERROR) return r->parser.problem_mark.line + 1;
    size_t line = 1;
    for (size_t i = 0; i < r->n_bytes && i < r->parser.problem_offset; i++) line += r->text[i] == '\n';
    return line;
}

static pn_status next_event(reader *r, yaml_event_t *e) {
    if (!yaml_parser_parse(&r->parser, e))
        PN_FAIL(PN_USAGE, "%s: not valid YAML: %s", place(r, problem_line(r)),
                r->parser.problem ? r->parser.problem : "unreadable");
    return PN_OK;
}

static pn_status read_node(reader *r, yaml_event_t *e, int depth, node **out);

/* The key whose event is *e, which is consumed. The caller frees *out. */
static pn_status read_key(reader *r, yaml_event_t *e, const node *map, char **out) {
    size_t line = e->start_mark.line + 1;
    const char *text = (const char *)e->data.scalar.value;
    pn_status s = PN_OK;
    *out = NULL;
    if (e->type != YAML_SCALAR_EVENT || e->data.scalar.anchor || e->data.scalar.tag ||
        !is_word(text, e->data.scalar.length))
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE,
                       "%s: a key must be a plain word of at most 63 letters, digits, _ and -", place(r, line));
    else if (map_get(map, text, e->data.scalar.length))
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: key %s stands twice; remove one", place(r, line), text);
    else if (map->n == MAX_KEYS)
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: more than %d keys in one section", place(r, line), MAX_KEYS);
    else if (!(*out = strdup(text)))
        s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    yaml_event_delete(e);
    return s;
}

static pn_status read_map(reader *r, node *map, int depth) {
    for (;;) {
        yaml_event_t e;
        PN_TRY(next_event(r, &e));
        if (e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return PN_OK;
        }
        size_t line = e.start_mark.line + 1;
        char *key;
        node *value = NULL;
        PN_TRY(read_key(r, &e, map, &key));
        pn_status s = next_event(r, &e);
        if (!s) s = read_node(r, &e, depth + 1, &value);
        if (s) {
            free(key);
            return s;
        }
        value->key = key;
        value->line = (long)line;
        PN_TRY(node_add(map, value));
    }
}

static pn_status read_list(reader *r, node *list, int depth) {
    for (;;) {
        yaml_event_t e;
        PN_TRY(next_event(r, &e));
        if (e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            return PN_OK;
        }
        node *item;
        PN_TRY(read_node(r, &e, depth + 1, &item));
        PN_TRY(node_add(list, item));
    }
}

static bool is_null_word(const char *text) {
    return !*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") || !strcmp(text, "NULL");
}

/* Consumes *e and all that belongs to it. */
static pn_status read_node(reader *r, yaml_event_t *e, int depth, node **out) {
    size_t line = e->start_mark.line + 1;
    yaml_event_type_t type = e->type;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (type == YAML_SCALAR_EVENT)
        anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
    else if (type == YAML_MAPPING_START_EVENT)
        anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
    else if (type == YAML_SEQUENCE_START_EVENT)
        anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
    if (anchor || type == YAML_ALIAS_EVENT) {
        yaml_event_delete(e);
        PN_FAIL(PN_USAGE, "%s: anchors and aliases are not supported; write the value out", place(r, line));
    }
    if (tag) {
        yaml_event_delete(e);
        PN_FAIL(PN_USAGE, "%s: tags (\"!\") are not supported; the key decides the type of its value", place(r, line));
    }
    if (depth > MAX_DEPTH) {
        yaml_event_delete(e);
        PN_FAIL(PN_USAGE, "%s: nested deeper than %d levels", place(r, line), MAX_DEPTH);
    }
    node *n = node_new(type == YAML_MAPPING_START_EVENT    ? MAP
                       : type == YAML_SEQUENCE_START_EVENT ? LIST
                                                           : SCALAR,
                       (long)line, r->origin);
    pn_status s = n ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s && type == YAML_SCALAR_EVENT) {
        bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        const char *text = (const char *)e->data.scalar.value;
        if (strlen(text) != e->data.scalar.length)
            s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: a value holds a NUL byte", place(r, line));
        else if (!(plain && is_null_word(text)) && !(n->text = strdup(text)))
            s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    }
    yaml_event_delete(e);
    if (!s && type == YAML_MAPPING_START_EVENT) s = read_map(r, n, depth);
    if (!s && type == YAML_SEQUENCE_START_EVENT) s = read_list(r, n, depth);
    if (s) {
        node_free(n);
        return s;
    }
    *out = n;
    return PN_OK;
}

static pn_status parse_document(const char *name, const char *origin, const char *text, size_t n_bytes, node **out) {
    reader r = { .name = name, .origin = origin, .text = text, .n_bytes = n_bytes };
    PN_CHECK(yaml_parser_initialize(&r.parser), PN_MEMORY, "out of memory");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n_bytes);
    *out = NULL;
    pn_status s = PN_OK;
    yaml_event_t e;
    bool done = false;
    while (!done && !s) {
        s = next_event(&r, &e);
        if (s) break;
        switch (e.type) {
        case YAML_STREAM_END_EVENT:
            done = true;
            yaml_event_delete(&e);
            break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_START_EVENT:
        case YAML_DOCUMENT_END_EVENT: yaml_event_delete(&e); break;
        default:
            if (*out) {
                yaml_event_delete(&e);
                s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: more than one YAML document", name);
            } else {
                s = read_node(&r, &e, 0, out);
            }
        }
    }
    yaml_parser_delete(&r.parser);
    if (s) {
        node_free(*out);
        *out = NULL;
    }
    return s;
}

/* ---- loading ---- */

static pn_status config_new(const char *name, const char *text, size_t n_bytes, pn_config **out) {
    pn_config *c = calloc(1, sizeof *c);
    PN_CHECK(c, PN_MEMORY, "out of memory");
    c->name = strdup(name);
    pn_status s = c->name ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s) s = parse_document(name, NULL, text, n_bytes, &c->root);
    if (!s && c->root && is_null(c->root)) c->root->kind = MAP; /* "---" alone */
    if (!s && c->root && c->root->kind != MAP)
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: the top level must be keys and values", name);
    if (!s && !c->root && !(c->root = node_new(MAP, 0, NULL)))
        s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (s) {
        pn_config_destroy(&c);
        return s;
    }
    *out = c;
    return PN_OK;
}

pn_status pn_config_parse(const char *name, const char *text, pn_config **out) {
    return config_new(name, text, strlen(text), out);
}

pn_status pn_config_load(const char *path, pn_config **out) {
    char *text;
    size_t n_bytes;
    PN_TRY(pn_file_read(path, MAX_BYTES, &text, &n_bytes));
    pn_status s = config_new(path, text, n_bytes, out);
    free(text);
    return s;
}

void pn_config_destroy(pn_config **c) {
    if (!c || !*c) return;
    node_free((*c)->root);
    free((*c)->name);
    free(*c);
    *c = NULL;
}

const char *pn_config_name(const pn_config *c) {
    return c->name;
}

static const char *origin_text(const pn_config *c, const node *n, char *buffer, size_t size) {
    if (n->origin)
        snprintf(buffer, size, "%s", n->origin);
    else
        snprintf(buffer, size, "%s:%ld", c->name, n->line);
    return buffer;
}

/* ---- --set ---- */

/* The child of `at` named by the piece of a path, made as an empty section when absent. */
static pn_status descend(node *at, const char *piece, size_t len, const char *assignment, node **out) {
    if (is_null(at)) at->kind = MAP;
    PN_CHECK(at->kind != SCALAR, PN_USAGE, "--set %s: %.*s lies inside a plain value", assignment, (int)len, piece);
    *out = child(at, piece, len);
    if (*out) return PN_OK;
    PN_CHECK(at->kind == MAP, PN_USAGE, "--set %s: the list there has %d elements, counted from 0", assignment, at->n);
    PN_CHECK(is_word(piece, len), PN_USAGE, "--set %s: a key must be a plain word of letters, digits, _ and -",
             assignment);
    PN_CHECK(at->n < MAX_KEYS, PN_USAGE, "--set %s: more than %d keys in one section", assignment, MAX_KEYS);
    return add_section(at, piece, len, by_set, out);
}

/* `at` becomes `value` and keeps its key. */
static void assign(node *at, node *value) {
    for (int i = 0; i < at->n; i++) node_free(at->item[i]);
    free(at->item);
    free(at->text);
    node empty = { .kind = SCALAR };
    if (!value) value = &empty;
    at->kind = value->kind;
    at->text = value->text;
    at->item = value->item;
    at->n = value->n;
    at->cap = value->cap;
    at->origin = by_set;
    if (value != &empty) free(value);
}

pn_status pn_config_set(pn_config *c, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    PN_CHECK(equals && equals > assignment, PN_USAGE,
             "--set %s: write it as key=value, for example search.beam.width=4", assignment);
    char name[256];
    snprintf(name, sizeof name, "--set %s", assignment);
    PN_CHECK(strlen(equals) <= MAX_BYTES, PN_USAGE, "%.100s...: a value larger than 1 MiB is a mistake", name);
    node *value = NULL, *at = c->root;
    PN_TRY(parse_document(name, by_set, equals + 1, strlen(equals + 1), &value)); /* before anything changes */
    int depth = 0;
    for (const char *p = assignment; p < equals;) {
        size_t len = strcspn(p, ".=");
        pn_status s = PN_OK;
        if (++depth > MAX_DEPTH)
            s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: nested deeper than %d levels", name, MAX_DEPTH);
        if (!s) s = descend(at, p, len, assignment, &at);
        if (s) {
            node_free(value);
            return s;
        }
        p += len + 1;
    }
    assign(at, value);
    return PN_OK;
}

/* ---- reading ---- */

static pn_status make_path(pn_config *c, const char *path, node **out) {
    node *at = c->root;
    for (const char *p = path; *p;) {
        size_t len = strcspn(p, ".");
        node *next = child(at, p, len);
        if (!next) {
            PN_CHECK(at->kind == MAP, PN_USAGE, "%s: no such section", pn_config_where(c, path));
            PN_TRY(add_section(at, p, len, by_default, &next));
        }
        if (is_null(next)) next->kind = MAP; /* "section:" with nothing under it */
        next->used = true;
        at = next;
        p += len;
        if (*p == '.') p++;
    }
    *out = at;
    return PN_OK;
}

static bool is_list(const pn_option *row) {
    return row->kind == PN_OPTION_INTS || row->kind == PN_OPTION_STRINGS;
}

static pn_status read_items(pn_config *c, const char *section, const pn_option *row, const node *value, void *out) {
    char where[400], origin[256];
    for (int i = 0; i < value->n; i++) {
        const node *item = value->item[i];
        snprintf(where, sizeof where, "%s: %s", origin_text(c, item, origin, sizeof origin), section);
        PN_CHECK(item->kind == SCALAR && item->text, PN_USAGE, "%s: %s must be a list of values", where, row->name);
        value->item[i]->used = true;
        PN_TRY(pn_option_parse(row, where, item->text, i, out));
    }
    return PN_OK;
}

static pn_status read_value(pn_config *c, const char *section, const pn_option *row, const node *value, void *out) {
    char where[400], origin[256];
    if (!*section) section = "top level";
    snprintf(where, sizeof where, "%s: %s", origin_text(c, value, origin, sizeof origin), section);
    if (is_list(row)) {
        *(int64_t *)(void *)((char *)out + row->offset) = 0; /* both list structs start with n */
        if (value->kind == LIST) return read_items(c, section, row, value, out);
        PN_CHECK(value->kind == SCALAR, PN_USAGE, "%s: %s must be a list", where, row->name);
    }
    if (row->kind == PN_OPTION_RAMP && value->kind == LIST) {
        PN_CHECK(value->n == 2, PN_USAGE, "%s: %s lists %d numbers; give one, or the first and the last", where,
                 row->name, value->n);
        return read_items(c, section, row, value, out);
    }
    PN_CHECK(value->kind == SCALAR, PN_USAGE, "%s: %s must be a single value", where, row->name);
    return pn_option_parse(row, where, value->text, 0, out);
}

/* Puts the row's default into the section, to be shown by print: a new value, or the null that the file wrote. */
static pn_status show_default(node *section, const pn_option *row, node *value) {
    node *parsed = NULL;
    if (!value) {
        PN_TRY(add_section(section, row->name, strlen(row->name), by_default, &value));
        value->kind = SCALAR;
    }
    value->used = true;
    if (is_list(row)) {
        const char *text = row->def ? row->def : "[]";
        PN_TRY(parse_document(row->name, by_default, text, strlen(text), &parsed));
        assign(value, parsed);
        for (int i = 0; i < value->n; i++) value->item[i]->used = true;
    } else if (row->def) {
        value->text = strdup(row->def);
        PN_CHECK(value->text, PN_MEMORY, "out of memory");
    }
    value->origin = by_default;
    return PN_OK;
}

static void add_table(node *section, const pn_option *table) {
    for (int k = 0; k < section->n_tables; k++)
        if (section->table[k] == table) return;
    PN_ASSERT(section->n_tables < MAX_TABLES);
    section->table[section->n_tables++] = table;
}

pn_status pn_config_read(pn_config *c, const char *section, const pn_option *table, void *out) {
    node *at;
    PN_TRY(make_path(c, section, &at));
    PN_CHECK(at->kind == MAP, PN_USAGE, "%s: must be a section with keys of its own", pn_config_where(c, section));
    add_table(at, table);
    PN_TRY(pn_options_defaults(table, out));
    for (const pn_option *row = table; row->name; row++) {
        node *value = map_get(at, row->name, strlen(row->name));
        if (value) value->used = true;
        if (row->kind == PN_OPTION_SECTION) continue;
        if (value && !is_null(value))
            PN_TRY(read_value(c, section, row, value, out));
        else
            PN_TRY(show_default(at, row, value));
    }
    return PN_OK;
}

bool pn_config_has(const pn_config *c, const char *path) {
    const node *n = find(c, path);
    return n && n->origin != by_default && !is_null(n);
}

pn_status pn_config_list_size(pn_config *c, const char *path, int *n) {
    node *at = find(c, path);
    *n = 0;
    if (!at) return PN_OK;
    at->used = true;
    if (is_null(at)) return PN_OK;
    PN_CHECK(at->kind == LIST, PN_USAGE, "%s: must be a list", pn_config_where(c, path));
    *n = at->n;
    return PN_OK;
}

int pn_config_keys(const pn_config *c, const char *path, const char *const **keys) {
    const node *at = find(c, path);
    pn_config *writable = (pn_config *)(uintptr_t)c; /* the key array is a cache */
    int n = 0;
    for (int i = 0; at && at->kind == MAP && i < at->n && n < MAX_KEYS; i++)
        if (at->item[i]->origin != by_default) writable->keys[n++] = at->item[i]->key;
    *keys = c->keys;
    return n;
}

const char *pn_config_where(pn_config *c, const char *path) {
    const node *n = find(c, path);
    char origin[256];
    snprintf(c->where, sizeof c->where, "%s: %s", n ? origin_text(c, n, origin, sizeof origin) : c->name, path);
    return c->where;
}

/* ---- unknown keys ---- */

/* Names a key of the section may have: those of its tables, and the sub-sections that were read. */
static int known_keys(const node *section, const char **names, int most) {
    int n = 0;
    for (int k = 0; k < section->n_tables; k++)
        for (const pn_option *row = section->table[k]; row->name && n < most; row++) names[n++] = row->name;
    for (int i = 0; i < section->n && n < most; i++) {
        const node *sub = section->item[i];
        bool listed = !sub->used || sub->kind == SCALAR;
        for (int k = 0; k < n && !listed; k++) listed = !strcmp(names[k], sub->key);
        if (!listed) names[n++] = sub->key;
    }
    return n;
}

static pn_status unknown_key(const pn_config *c, const node *section, const node *key, const char *path) {
    enum { MOST = 256 };
    char origin[256];
    if (!key->key)
        PN_FAIL(PN_USAGE, "%s: %s is not read by anything; remove it", origin_text(c, key, origin, sizeof origin),
                path);
    const char *names[MOST];
    int n = known_keys(section, names, MOST);
    const char *near = pn_nearest(key->key, names, n);
    pn_buf known = { 0 };
    for (int i = 0; i < n; i++) pn_buf_printf(&known, "%s%s", i ? ", " : "", names[i]);
    pn_status s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: unknown key %s%s%s%s%s%s",
                             origin_text(c, key, origin, sizeof origin), path, near ? "; did you mean " : "",
                             near ? near : "", near ? "?" : "",
                             known.n_bytes ? (near ? " Known keys: " : "; known keys: ") : "", pn_buf_string(&known));
    pn_buf_free(&known);
    return s;
}

static pn_status check_used(const pn_config *c, const node *section, const char *path) {
    for (int i = 0; i < section->n; i++) {
        const node *n = section->item[i];
        char below[1200]; /* MAX_DEPTH keys of 63 letters */
        if (section->kind == LIST)
            snprintf(below, sizeof below, "%.1100s.%d", path, i);
        else
            snprintf(below, sizeof below, "%.1100s%s%s", path, *path ? "." : "", n->key);
        if (!n->used) return unknown_key(c, section, n, below);
        PN_TRY(check_used(c, n, below));
    }
    return PN_OK;
}

pn_status pn_config_finish(pn_config *c) {
    return check_used(c, c->root, "");
}

/* ---- printing ---- */

static void print_text(const char *text, FILE *out) {
    pn_buf b = { 0 };
    pn_yaml_string(text, &b);
    fputs(pn_buf_string(&b), out);
    pn_buf_free(&b);
}

static void print_origin(const pn_config *c, const node *n, FILE *out) {
    char origin[256];
    origin_text(c, n, origin, sizeof origin);
    for (char *p = origin; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = '?'; /* a comment ends with its line */
    fprintf(out, "  # %s\n", origin);
}

static bool flat(const node *n) {
    for (int i = 0; i < n->n; i++)
        if (n->item[i]->kind != SCALAR) return false;
    return true;
}

/* What stands on the line of its key or dash; false when it needs lines of its own. */
static bool print_inline(const node *v, FILE *out) {
    if (v->kind == SCALAR) {
        print_text(v->text, out);
        return true;
    }
    if (v->n == 0 || (v->kind == LIST && flat(v))) {
        fputs(v->kind == LIST ? "[" : "{", out);
        for (int k = 0; k < v->n; k++) {
            if (k) fputs(", ", out);
            print_text(v->item[k]->text, out);
        }
        fputs(v->kind == LIST ? "]" : "}", out);
        return true;
    }
    return false;
}

/* The first item stands where the line already is: after a dash, or at the start of an indented line. */
static void print_node(const pn_config *c, const node *n, int indent, FILE *out) {
    for (int i = 0; i < n->n; i++) {
        const node *v = n->item[i];
        if (i) fprintf(out, "%*s", indent, "");
        if (n->kind == LIST)
            fputs("- ", out);
        else if (v->kind == SCALAR || v->n == 0 || (v->kind == LIST && flat(v)))
            fprintf(out, "%s: ", v->key);
        else
            fprintf(out, "%s:\n%*s", v->key, indent + 2, "");
        if (print_inline(v, out))
            print_origin(c, v, out);
        else
            print_node(c, v, indent + 2, out);
    }
}

void pn_config_print(const pn_config *c, FILE *out) {
    if (c->root->n)
        print_node(c, c->root, 0, out);
    else
        fputs("{}\n", out);
}

pn_status pn_config_write(const pn_config *c, const char *path) {
    pn_file_writer w;
    PN_TRY(pn_file_writer_open(path, &w));
    pn_config_print(c, w.file); /* commit checks every write */
    PN_TRY(pn_file_writer_commit(&w));
    return PN_OK;
}

/* ---- comparing ---- */

/* A value as messages show it, on a line. */
static void show(const node *n, char *out, size_t size) {
    char *text = NULL;
    size_t n_bytes;
    snprintf(out, size, "%s", n ? "a section" : "not set");
    FILE *f = n ? open_memstream(&text, &n_bytes) : NULL;
    if (f) {
        const bool whole = print_inline(n, f);
        if (!fclose(f) && text && whole) snprintf(out, size, "%s", text);
    }
    free(text);
}

static bool is_number(const pn_option *row) {
    return row && (row->kind == PN_OPTION_INT || row->kind == PN_OPTION_FLOAT || row->kind == PN_OPTION_RAMP);
}

static bool same_text(const pn_option *row, const char *a, const char *b) {
    char *end_a, *end_b;
    if (!a || !b || !strcmp(a, b)) return a == b || (a && b);
    if (!is_number(row)) return false;
    const double x = strtod(a, &end_a), y = strtod(b, &end_b);
    return end_a > a && end_b > b && !*end_a && !*end_b && x == y;
}

/* Says nothing, as a value or as a section. */
static bool is_empty(const node *n) {
    return !n || is_null(n) || (n->kind == MAP && n->n == 0);
}

static const pn_option *row_of(const node *section, const char *key) {
    for (int k = 0; k < section->n_tables; k++) {
        const pn_option *row = pn_option_find(section->table[k], key);
        if (row) return row;
    }
    return NULL;
}

typedef struct comparison {
    const pn_config *c;
    pn_config_difference *first;
} comparison;

static bool differs(const comparison *x, const node *now, const node *before, const pn_option *row, const char *path);

/* An element or key that either has. in: the section or list of c, which knows its tables. */
static bool differs_below(const comparison *x, const node *in, const node *now, const node *before,
                          const pn_option *row, const char *path, int i) {
    const char *key = now ? now->key : before->key;
    char below[1200];
    if (key)
        snprintf(below, sizeof below, "%.1100s%s%s", path, *path ? "." : "", key);
    else
        snprintf(below, sizeof below, "%.1100s.%d", path, i);
    if (key) row = row_of(in, key);
    return !(row && row->incidental) && differs(x, now, before, row, below);
}

static bool differs(const comparison *x, const node *now, const node *before, const pn_option *row, const char *path) {
    char origin[256];
    if (is_empty(now) && is_empty(before)) return false;
    if (now && before && now->kind == before->kind && now->kind != SCALAR) {
        for (int i = 0; i < now->n; i++) {
            const node *a = now->item[i];
            const node *b = a->key ? map_get(before, a->key, strlen(a->key)) : i < before->n ? before->item[i] : NULL;
            if (differs_below(x, now, a, b, row, path, i)) return true;
        }
        for (int i = 0; i < before->n; i++) {
            const node *b = before->item[i];
            const bool seen = b->key ? map_get(now, b->key, strlen(b->key)) != NULL : i < now->n;
            if (!seen && differs_below(x, now, NULL, b, row, path, i)) return true;
        }
        return false;
    }
    if (now && before && now->kind == SCALAR && before->kind == SCALAR && same_text(row, now->text, before->text))
        return false;
    snprintf(x->first->where, sizeof x->first->where, "%s: %.250s",
             now ? origin_text(x->c, now, origin, sizeof origin) : x->c->name, path);
    show(now, x->first->value, sizeof x->first->value);
    show(before, x->first->before, sizeof x->first->before);
    return true;
}

bool pn_config_differs(const pn_config *c, const pn_config *before, pn_config_difference *first) {
    return differs(&(comparison){ c, first }, c->root, before->root, NULL, "");
}

static void help_node(const node *section, const char *path, FILE *out) {
    char below[512];
    if (section->n_tables) fprintf(out, "%s\n", *path ? path : "top level");
    for (int k = 0; k < section->n_tables; k++) pn_options_help(section->table[k], 2, out);
    for (int i = 0; i < section->n; i++) {
        if (section->kind == LIST)
            snprintf(below, sizeof below, "%.480s.%d", path, i);
        else
            snprintf(below, sizeof below, "%.250s%s%.250s", path, *path ? "." : "", section->item[i]->key);
        help_node(section->item[i], below, out);
    }
}

void pn_config_help(const pn_config *c, FILE *out) {
    help_node(c->root, "", out);
}

typedef struct table_visitor {
    void (*f)(void *ctx, const char *path, const pn_option *table);
    void *ctx;
} table_visitor;

static void visit_tables(const node *section, const char *path, const table_visitor *v) {
    char below[512];
    for (int k = 0; k < section->n_tables; k++) v->f(v->ctx, path, section->table[k]);
    for (int i = 0; i < section->n; i++) {
        if (section->kind == LIST)
            snprintf(below, sizeof below, "%.480s[]", path);
        else
            snprintf(below, sizeof below, "%.250s%s%.250s", path, *path ? "." : "", section->item[i]->key);
        visit_tables(section->item[i], below, v);
    }
}

void pn_config_each_table(const pn_config *c, void (*f)(void *ctx, const char *path, const pn_option *table),
                          void *ctx) {
    visit_tables(c->root, "", &(table_visitor){ f, ctx });
}
