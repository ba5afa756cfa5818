/* A YAML config bound to option tables.
 *
 * The file is parsed by libyaml events into a small tree that remembers line and origin of every value. Sections are
 * read with option tables; each key a table names is then in the tree, with its default where the file said nothing, so
 * that printing shows every value and where it came from. pn_config_finish refuses keys no table asked for.
 *
 * Paths are dotted: "search.beam", and "supernet.blocks.0" for the first element of a list. */
#ifndef PN_BASE_CONFIG_H
#define PN_BASE_CONFIG_H

#include "options.h"

typedef struct pn_config pn_config;

/* A section that configurations of a command may have: for the list of all its keys, which no one file shows. */
typedef struct pn_config_section {
    const char *path;       /* "search.limits"; "mixture[]": each element of a list; NULL ends */
    const pn_option *table; /* its keys; several rows of one path add up */
    const char *kind;       /* instead of a table: the keys of what is named there, of this kind (`postnas list`) */
} pn_config_section;

/* PN_IO when the file cannot be read or is larger than 1 MiB; PN_USAGE with file and line for broken YAML, duplicate
 * keys, keys that are no plain word ([A-Za-z0-9_-], at most 63), anchors, aliases and tags, nesting deeper than 16. */
pn_status pn_config_load(const char *path, pn_config **out);
/* The same from text; `name` stands for the file in messages. */
pn_status pn_config_parse(const char *name, const char *text, pn_config **out);
void pn_config_destroy(pn_config **c);
const char *pn_config_name(const pn_config *c);

/* "a.b.c=value", the value in YAML syntax, an element of a list by its index ("layers.1.heads=4"); makes sections that
 * do not exist yet. Call before reading: strings that were read may be replaced. */
pn_status pn_config_set(pn_config *c, const char *assignment);

/* Defaults, then the file's values, into *out. An absent section, or a value that is null, gives defaults. Strings are
 * owned by the config. */
pn_status pn_config_read(pn_config *c, const char *section, const pn_option *table, void *out);
/* The file or a --set says something there (not null, no default). */
bool pn_config_has(const pn_config *c, const char *path);
/* Elements of the list at `path`; 0 when absent; PN_USAGE when it is no list. */
pn_status pn_config_list_size(pn_config *c, const char *path, int *n);
/* Names of the keys of a mapping, in file order; 0 when absent. Borrowed. */
int pn_config_keys(const pn_config *c, const char *path, const char *const **keys);
/* "file:line: path" of a section or value, for messages about it; borrowed until the next call. */
const char *pn_config_where(pn_config *c, const char *path);

/* PN_USAGE naming file, line, key, the nearest known key and the known keys, when a key was never read. Call when every
 * table has been read. */
pn_status pn_config_finish(pn_config *c);

typedef struct pn_config_difference {
    char where[512];              /* "file:line: path" of the value in c */
    char value[256], before[256]; /* as YAML; "not set" */
} pn_config_difference;

/* Whether c, which was read and finished, and `before`, such a config's print, differ in a value that is not
 * incidental (pn_option); *first is the first one. Numbers may be written in several ways. */
bool pn_config_differs(const pn_config *c, const pn_config *before, pn_config_difference *first);

/* The resolved config as YAML, each value followed by its origin: "# default", "# file:line", "# --set". It loads
 * again and reads the same. */
void pn_config_print(const pn_config *c, FILE *out);
/* The same to a file, written aside and renamed. */
pn_status pn_config_write(const pn_config *c, const char *path);
/* What every section read so far accepts: its path, then a line per key. */
void pn_config_help(const pn_config *c, FILE *out);
/* Calls f for every section read so far and table it was read with; "[]" stands for an element of a list. */
void pn_config_each_table(const pn_config *c, void (*f)(void *ctx, const char *path, const pn_option *table),
                          void *ctx);

#endif
