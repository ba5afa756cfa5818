/* Option tables: a row per key gives its name, type, default, bounds and help; the same rows serve the YAML config, the
 * JSON of a checkpoint, --help and the documentation.
 *
 *     typedef struct beam_options { int64_t width; double margin; bool verbose; } beam_options;
 *     static const pn_option table[] = {
 *         PN_OPT_INT(beam_options, width, 2, 1, 1000, "paths kept per round"),
 *         PN_OPT_FLOAT(beam_options, margin, 0.1, 0, 1, "..."),
 *         PN_OPT_BOOL(beam_options, verbose, false, "..."),
 *         PN_OPT_END,
 *     };
 *
 * The key is the field's name unless a row is written out by hand. */
#ifndef PN_BASE_OPTIONS_H
#define PN_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "buffer.h"
#include "status.h"

enum { PN_LIST_MAX = 64 };

typedef struct pn_int_list {
    int64_t n, item[PN_LIST_MAX];
} pn_int_list;

typedef struct pn_string_list {
    int64_t n;
    const char *item[PN_LIST_MAX]; /* owned by the config, or static */
} pn_string_list;

/* A number that changes from start to end of something. */
typedef struct pn_ramp {
    double from, to;
} pn_ramp;

/* At x in 0 .. 1, linearly. */
static inline double pn_ramp_at(const pn_ramp *r, double x) {
    return x >= 1 ? r->to : r->from + (r->to - r->from) * x;
}

typedef enum pn_option_kind {
    PN_OPTION_BOOL,    /* bool */
    PN_OPTION_INT,     /* int64_t in min .. max */
    PN_OPTION_FLOAT,   /* double in min .. max */
    PN_OPTION_RAMP,    /* pn_ramp, both in min .. max: a number, or the first and the last one as a list */
    PN_OPTION_STRING,  /* const char *, owned by the config; NULL when unset and without default */
    PN_OPTION_ENUM,    /* int64_t: index into choices */
    PN_OPTION_INTS,    /* pn_int_list, each in min .. max */
    PN_OPTION_STRINGS, /* pn_string_list */
    PN_OPTION_SECTION  /* declares that a sub-section of this name exists; read with a table of its own */
} pn_option_kind;

typedef struct pn_option {
    const char *name; /* NULL ends a table */
    pn_option_kind kind;
    size_t offset;
    const char *def; /* default as YAML text; NULL: unset string, or empty list */
    double min, max;
    const char *const *choices; /* enum: NULL-ended */
    const char *zero;           /* int: the word for 0, which the bounds leave out: "auto"; NULL: none */
    const char *help;
    const char *example; /* a value as YAML text; NULL: the default is one */
    bool extension;      /* bool, default false: postnas alone has it (pn_block_spec_extended) */
    bool incidental;     /* changes no bit of what a run makes: it goes on with any value (pn_config_differs) */
} pn_option;

#define PN_OPT_BOOL(type, field, def_, help_)                                                                          \
    { .name = #field, .kind = PN_OPTION_BOOL, .offset = offsetof(type, field), .def = #def_, .help = help_ }
#define PN_OPT_INT(type, field, def_, min_, max_, help_, ...)                                                          \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_INT, .offset = offsetof(type, field), .def = #def_, .min = min_,             \
        .max = max_, .help = help_, __VA_ARGS__                                                                        \
    }
/* A bool that is false in every published model of the kind. */
#define PN_OPT_EXTENSION(type, field, help_)                                                                           \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_BOOL, .offset = offsetof(type, field), .def = "false", .help = help_,        \
        .extension = true                                                                                              \
    }
/* A whole number in min .. max, or a word that is stored as 0: PN_OPT_INT_OR(swa_options, window, "auto", "auto", ...)
 */
#define PN_OPT_INT_OR(type, field, zero_, def_, min_, max_, help_)                                                     \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_INT, .offset = offsetof(type, field), .def = def_, .min = min_, .max = max_, \
        .zero = zero_, .help = help_                                                                                   \
    }
#define PN_OPT_FLOAT(type, field, def_, min_, max_, help_, ...)                                                        \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_FLOAT, .offset = offsetof(type, field), .def = #def_, .min = min_,           \
        .max = max_, .help = help_, __VA_ARGS__                                                                        \
    }
#define PN_OPT_RAMP(type, field, def_, min_, max_, help_)                                                              \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_RAMP, .offset = offsetof(type, field), .def = #def_, .min = min_,            \
        .max = max_, .help = help_                                                                                     \
    }
/* def_: a string literal, or NULL and then .example = "..." at the end */
#define PN_OPT_STRING(type, field, def_, help_, ...)                                                                   \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_STRING, .offset = offsetof(type, field), .def = def_, .help = help_,         \
        __VA_ARGS__                                                                                                    \
    }
#define PN_OPT_ENUM(type, field, def_, choices_, help_)                                                                \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_ENUM, .offset = offsetof(type, field), .def = def_, .choices = choices_,     \
        .help = help_                                                                                                  \
    }
/* def_: a flow sequence as text, "[64, 128]" or "[a, b]" (plain words), or NULL for an empty list and then .example */
#define PN_OPT_INTS(type, field, def_, min_, max_, help_, ...)                                                         \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_INTS, .offset = offsetof(type, field), .def = def_, .min = min_,             \
        .max = max_, .help = help_, __VA_ARGS__                                                                        \
    }
#define PN_OPT_STRINGS(type, field, def_, help_, ...)                                                                  \
    {                                                                                                                  \
        .name = #field, .kind = PN_OPTION_STRINGS, .offset = offsetof(type, field), .def = def_, .help = help_,        \
        __VA_ARGS__                                                                                                    \
    }
#define PN_OPT_SECTION(name_, help_, ...)                                                                              \
    { .name = name_, .kind = PN_OPTION_SECTION, .help = help_, __VA_ARGS__ }
#define PN_OPT_END                                                                                                     \
    { .name = NULL }

/* Fills every field of the table with its default. Default strings are borrowed from the table. */
pn_status pn_options_defaults(const pn_option *table, void *out);

/* Parses one scalar into the row's field. Lists are parsed item by item: pass the item's index and text, in order from
 * 0. `where` starts the message ("configs/a.yaml:12: search.beam"). Strings are stored as given: text must outlive out.
 */
pn_status pn_option_parse(const pn_option *row, const char *where, const char *text, int64_t list_index, void *out);
/* Appends the field's value as YAML text that reads back the same: "~" for an unset string, "[1, 2]" for a list. */
void pn_option_text(const pn_option *row, const void *in, pn_buf *out);
/* Appends text as a YAML scalar, quoted where YAML would read it as something else; NULL as "~". */
void pn_yaml_string(const char *text, pn_buf *out);

const pn_option *pn_option_find(const pn_option *table, const char *name);
/* The row whose name is nearest to `name`, or NULL when none is near. */
const char *pn_option_nearest(const pn_option *table, const char *name);
/* The nearest of n names, else the first that begins with `name`, or NULL: the "did you mean" of every message. */
const char *pn_nearest(const char *name, const char *const *names, int n);
/* Letters to insert, remove or change. */
int pn_edit_distance(const char *a, const char *b);
/* What a value must be: "a whole number in 1 .. 9, or auto", "one of its names: f32 | bf16". */
void pn_option_type_text(const pn_option *row, pn_buf *out);
/* The default as YAML text; "none" for an unset string, an empty list and a section. */
void pn_option_default_text(const pn_option *row, pn_buf *out);
/* Lines per key: name, help, type and bounds, default, and the example where there is one; `indent` spaces before. */
void pn_options_help(const pn_option *table, int indent, FILE *out);

#endif
