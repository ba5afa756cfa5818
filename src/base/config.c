#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

enum { MAX_DEPTH = 16, MAX_TABLES = 4, MAX_KEYS = 512 };

typedef enum node_kind { SCALAR, MAP, LIST } node_kind;

typedef struct node {
    node_kind kind;
    char *key;          /* in a map; NULL otherwise */
    char *text;         /* scalar */
    struct node **item; /* map values, list elements */
    int n, cap;
    long line;          /* 0: not from the file */
    const char *origin; /* "--set", "default", or NULL: the file */
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

static node *find(const pn_config *c, const char *path) {
    node *at = c->root;
    while (at && *path) {
        size_t len = strcspn(path, ".");
        if (at->kind == LIST) {
            char *end;
            long i = strtol(path, &end, 10);
            at = end == path + len && i >= 0 && i < at->n ? at->item[i] : NULL;
        } else {
            at = map_get(at, path, len);
        }
        path += len;
        if (*path == '.') path++;
    }
    return at;
}

/* ---- YAML events ---- */

typedef struct reader {
    yaml_parser_t parser;
    const char *name, *origin;
} reader;

static pn_status next_event(reader *r, yaml_event_t *e) {
    if (!yaml_parser_parse(&r->parser, e))
        PN_FAIL(PN_USAGE, "%s:%zu: not valid YAML: %s", r->name, r->parser.problem_mark.line + 1,
                r->parser.problem ? r->parser.problem : "unreadable");
    return PN_OK;
}

static pn_status read_node(reader *r, yaml_event_t *e, int depth, node **out);

static pn_status read_map(reader *r, node *map, int depth) {
    for (;;) {
        yaml_event_t e;
        PN_TRY(next_event(r, &e));
        long line = (long)e.start_mark.line + 1;
        if (e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return PN_OK;
        }
        if (e.type != YAML_SCALAR_EVENT || e.data.scalar.anchor) {
            yaml_event_delete(&e);
            PN_FAIL(PN_USAGE, "%s:%ld: a key must be a plain word", r->name, line);
        }
        char *key = strdup((const char *)e.data.scalar.value);
        yaml_event_delete(&e);
        PN_CHECK(key, PN_MEMORY, "out of memory");
        node *value = NULL;
        pn_status s = PN_OK;
        if (map_get(map, key, strlen(key)))
            s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s:%ld: key %s stands twice; remove one", r->name, line, key);
        if (!s) s = next_event(r, &e);
        if (!s) s = read_node(r, &e, depth + 1, &value);
        if (s) {
            free(key);
            return s;
        }
        value->key = key;
        value->line = line;
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

/* Consumes *e and all that belongs to it. */
static pn_status read_node(reader *r, yaml_event_t *e, int depth, node **out) {
    long line = (long)e->start_mark.line + 1;
    yaml_event_type_t type = e->type;
    const yaml_char_t *anchor = type == YAML_SCALAR_EVENT           ? e->data.scalar.anchor
                                : type == YAML_MAPPING_START_EVENT  ? e->data.mapping_start.anchor
                                : type == YAML_SEQUENCE_START_EVENT ? e->data.sequence_start.anchor
                                                                    : NULL;
    if (anchor || type == YAML_ALIAS_EVENT) {
        yaml_event_delete(e);
        PN_FAIL(PN_USAGE, "%s:%ld: anchors and aliases are not supported; write the value out", r->name, line);
    }
    if (depth > MAX_DEPTH) {
        yaml_event_delete(e);
        PN_FAIL(PN_USAGE, "%s:%ld: nested deeper than %d levels", r->name, line, MAX_DEPTH);
    }
    node *n = node_new(type == YAML_MAPPING_START_EVENT    ? MAP
                       : type == YAML_SEQUENCE_START_EVENT ? LIST
                                                           : SCALAR,
                       line, r->origin);
    pn_status s = n ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s && type == YAML_SCALAR_EVENT) {
        bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        const char *text = (const char *)e->data.scalar.value;
        if (strlen(text) != e->data.scalar.length)
            s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s:%ld: a value holds a NUL byte", r->name, line);
        else if (!plain || (strcmp(text, "~") && strcmp(text, "null") && *text))
            n->text = strdup(text);
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
    reader r = { .name = name, .origin = origin };
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
    pn_status s = c->name ? parse_document(name, NULL, text, n_bytes, &c->root) : PN_MEMORY;
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
    enum { LIMIT = 1 << 20 };
    FILE *f = fopen(path, "rb");
    PN_CHECK(f, PN_IO, "%s: cannot open the config: %s", path, strerror(errno));
    char *text = malloc(LIMIT + 1);
    size_t n = text ? fread(text, 1, LIMIT + 1, f) : 0;
    bool broken = ferror(f) != 0;
    fclose(f);
    pn_status s;
    if (!text)
        s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    else if (broken)
        s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot read the config", path);
    else if (n > LIMIT)
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: a config larger than 1 MiB is a mistake", path);
    else
        s = config_new(path, text, n, out);
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

/* The child of `at` named by the path piece, made as an empty map when absent. */
static pn_status descend(node *at, const char *piece, size_t len, const char *assignment, node **out) {
    if (at->kind == LIST) {
        char *end;
        long i = strtol(piece, &end, 10);
        PN_CHECK(end == piece + len && i >= 0 && i < at->n, PN_USAGE, "--set %s: the list there has elements 0 .. %d",
                 assignment, at->n - 1);
        *out = at->item[i];
        return PN_OK;
    }
    PN_CHECK(at->kind == MAP, PN_USAGE, "--set %s: %.*s lies inside a plain value", assignment, (int)len, piece);
    *out = map_get(at, piece, len);
    if (*out) return PN_OK;
    node *fresh = node_new(MAP, 0, "--set");
    PN_CHECK(fresh && (fresh->key = strndup(piece, len)), PN_MEMORY, "out of memory");
    PN_TRY(node_add(at, fresh));
    *out = fresh;
    return PN_OK;
}

pn_status pn_config_set(pn_config *c, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    PN_CHECK(equals && equals > assignment, PN_USAGE,
             "--set %s: write it as key=value, for example search.beam.width=4", assignment);
    node *at = c->root;
    for (const char *p = assignment; p < equals;) {
        size_t len = strcspn(p, ".=");
        PN_CHECK(len, PN_USAGE, "--set %s: an empty key", assignment);
        PN_TRY(descend(at, p, len, assignment, &at));
        p += len + 1;
    }
    node *value = NULL;
    char name[256];
    snprintf(name, sizeof name, "--set %s", assignment);
    PN_TRY(parse_document(name, "--set", equals + 1, strlen(equals + 1), &value));
    for (int i = 0; i < at->n; i++) node_free(at->item[i]);
    free(at->item);
    free(at->text);
    at->item = value ? value->item : NULL;
    at->n = at->cap = value ? value->n : 0;
    at->text = value ? value->text : NULL;
    at->kind = value ? value->kind : SCALAR;
    at->origin = "--set";
    free(value);
    return PN_OK;
}

/* ---- reading ---- */

static pn_status make_path(pn_config *c, const char *path, node **out) {
    node *at = c->root;
    for (const char *p = path; *p;) {
        size_t len = strcspn(p, ".");
        node *next = NULL;
        if (at->kind == MAP)
            next = map_get(at, p, len);
        else if (at->kind == LIST) {
            long i = strtol(p, NULL, 10);
            next = i >= 0 && i < at->n ? at->item[i] : NULL;
        }
        if (!next) {
            PN_CHECK(at->kind == MAP, PN_USAGE, "%s: no such section", pn_config_where(c, path));
            next = node_new(MAP, 0, "default");
            PN_CHECK(next && (next->key = strndup(p, len)), PN_MEMORY, "out of memory");
            PN_TRY(node_add(at, next));
        }
        if (next->kind == SCALAR && !next->text) next->kind = MAP; /* "section:" with nothing under it */
        next->used = true;
        at = next;
        p += len;
        if (*p == '.') p++;
    }
    *out = at;
    return PN_OK;
}

static pn_status read_value(pn_config *c, const char *section, const pn_option *row, node *value, void *out) {
    char where[400], origin[256];
    snprintf(where, sizeof where, "%s: %s", origin_text(c, value, origin, sizeof origin),
             *section ? section : "top level");
    bool list = row->kind == PN_OPTION_INTS || row->kind == PN_OPTION_STRINGS;
    value->used = true;
    if (value->kind == SCALAR && !value->text) { /* "key:" or "key: ~": keep the default */
        return PN_OK;
    }
    if (list) {
        *(int64_t *)(void *)((char *)out + row->offset) = 0;
        if (value->kind == SCALAR) return pn_option_parse(row, where, value->text, 0, out);
        PN_CHECK(value->kind == LIST, PN_USAGE, "%s: %s must be a list", where, row->name);
        for (int i = 0; i < value->n; i++) {
            PN_CHECK(value->item[i]->kind == SCALAR && value->item[i]->text, PN_USAGE,
                     "%s: %s must be a list of values", where, row->name);
            value->item[i]->used = true;
            PN_TRY(pn_option_parse(row, where, value->item[i]->text, i, out));
        }
        return PN_OK;
    }
    PN_CHECK(value->kind == SCALAR, PN_USAGE, "%s: %s must be a single value", where, row->name);
    return pn_option_parse(row, where, value->text, 0, out);
}

pn_status pn_config_read(pn_config *c, const char *section, const pn_option *table, void *out) {
    node *at;
    PN_TRY(make_path(c, section, &at));
    PN_CHECK(at->kind == MAP, PN_USAGE, "%s: must be a section with keys of its own", pn_config_where(c, section));
    if (at->n_tables < MAX_TABLES) at->table[at->n_tables++] = table;
    PN_TRY(pn_options_defaults(table, out));
    for (const pn_option *row = table; row->name; row++) {
        node *value = map_get(at, row->name, strlen(row->name));
        if (row->kind == PN_OPTION_SECTION) {
            if (value) value->used = true;
            continue;
        }
        if (value) PN_TRY(read_value(c, section, row, value, out));
        if (value && (value->kind != SCALAR || value->text)) continue;
        if (!row->def) continue;
        if (!value) { /* shown by print with its origin */
            value = node_new(SCALAR, 0, "default");
            PN_CHECK(value && (value->key = strdup(row->name)), PN_MEMORY, "out of memory");
            PN_TRY(node_add(at, value));
        }
        value->used = true;
        value->origin = "default";
        char text[512];
        value->text = strdup(pn_option_text(row, out, text, sizeof text));
        PN_CHECK(value->text, PN_MEMORY, "out of memory");
    }
    return PN_OK;
}

bool pn_config_has(const pn_config *c, const char *path) {
    const node *n = find(c, path);
    return n && (n->kind != SCALAR || n->text);
}

pn_status pn_config_list_size(pn_config *c, const char *path, int *n) {
    node *at = find(c, path);
    *n = 0;
    if (!at || (at->kind == SCALAR && !at->text)) return PN_OK;
    PN_CHECK(at->kind == LIST, PN_USAGE, "%s: must be a list", pn_config_where(c, path));
    at->used = true;
    *n = at->n;
    return PN_OK;
}

int pn_config_keys(const pn_config *c, const char *path, const char *const **keys) {
    const node *at = find(c, path);
    pn_config *writable = (pn_config *)(uintptr_t)c; /* the key array is a cache */
    int n = 0;
    for (int i = 0; at && at->kind == MAP && i < at->n && n < MAX_KEYS; i++)
        if (at->item[i]->origin == NULL || strcmp(at->item[i]->origin, "default"))
            writable->keys[n++] = at->item[i]->key;
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

static void known_keys(const node *section, char *out, size_t n) {
    out[0] = '\0';
    for (int k = 0; k < section->n_tables; k++) {
        for (const pn_option *row = section->table[k]; row->name; row++) {
            size_t len = strlen(out);
            snprintf(out + len, n - len, "%s%s", len ? ", " : "", row->name);
        }
    }
}

static pn_status check_used(const pn_config *c, const node *section, const char *path) {
    for (int i = 0; i < section->n; i++) {
        const node *n = section->item[i];
        char below[512], origin[256], known[1024];
        if (section->kind == LIST)
            snprintf(below, sizeof below, "%s.%d", path, i);
        else
            snprintf(below, sizeof below, "%s%s%s", path, *path ? "." : "", n->key);
        if (!n->used) {
            const char *near = NULL;
            for (int k = 0; k < section->n_tables && !near && n->key; k++)
                near = pn_option_nearest(section->table[k], n->key);
            known_keys(section, known, sizeof known);
            PN_FAIL(PN_USAGE, "%s: unknown key %s%s%s%s%s%s", origin_text(c, n, origin, sizeof origin), below,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "", *known ? " Known keys: " : "",
                    known);
        }
        PN_TRY(check_used(c, n, below));
    }
    return PN_OK;
}

pn_status pn_config_finish(pn_config *c) {
    return check_used(c, c->root, "");
}

/* ---- printing ---- */

static void print_text(const char *text, FILE *out) {
    const pn_option row = { .name = "", .kind = PN_OPTION_STRING };
    char buffer[4096];
    fputs(text ? pn_option_text(&row, &text, buffer, sizeof buffer) : "~", out);
}

static bool flat(const node *n) {
    for (int i = 0; i < n->n; i++)
        if (n->item[i]->kind != SCALAR) return false;
    return true;
}

static void print_node(const pn_config *c, const node *n, int indent, bool first_inline, FILE *out) {
    for (int i = 0; i < n->n; i++) {
        const node *v = n->item[i];
        char origin[256];
        if (!(i == 0 && first_inline)) fprintf(out, "%*s", indent, "");
        if (n->kind == LIST)
            fputs("- ", out);
        else
            fprintf(out, "%s:", v->key);
        if (v->kind == SCALAR) {
            if (n->kind == MAP) fputc(' ', out);
            /* a default list is stored as its flow text */
            if (v->origin && !strcmp(v->origin, "default") && v->text && v->text[0] == '[')
                fputs(v->text, out);
            else
                print_text(v->text, out);
            fprintf(out, "  # %s\n", origin_text(c, v, origin, sizeof origin));
        } else if (v->kind == LIST && flat(v)) {
            fputs(" [", out);
            for (int k = 0; k < v->n; k++) {
                if (k) fputs(", ", out);
                print_text(v->item[k]->text, out);
            }
            fprintf(out, "]  # %s\n", origin_text(c, v, origin, sizeof origin));
        } else if (n->kind == LIST) {
            print_node(c, v, indent + 2, true, out);
        } else {
            fputs(v->n ? "\n" : " {}\n", out);
            print_node(c, v, indent + 2, false, out);
        }
    }
}

void pn_config_print(const pn_config *c, FILE *out) {
    print_node(c, c->root, 0, false, out);
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
