/* Shared by the sections of the report.
 *
 * A section is a function that appends one <section> to the page, or nothing when its part of the result is missing or
 * empty. Text that comes from the result reaches the page only through pn_html, which escapes it. */
#ifndef PN_IO_REPORT_INTERNAL_H
#define PN_IO_REPORT_INTERNAL_H

#include "buffer.h"
#include "model.h"
#include "report.h"

enum {
    PN_PAGE_NAME = 64,
    PN_PAGE_BLOCKS = 32,
    PN_PAGE_COLUMNS = 64,
    PN_PAGE_STAGES = 8,
    PN_PAGE_TEXT = 64, /* buffer for a number as text */
};

typedef struct pn_page_path { /* block names, layer by layer; at most PN_MAX_LAYERS of them are read */
    int n;
    char name[PN_MAX_LAYERS][PN_PAGE_NAME];
} pn_page_path;

typedef struct pn_page_entry {
    const json_t *json;      /* borrowed */
    double objective, cache; /* cache: bytes, -1 unknown */
    int order;               /* its place in the history */
    int round, parent;       /* parent: the order of the path it grew from; -1: none, or unknown */
    int attention, none;     /* layers of either kind */
    int column;
    bool complete, chosen, kept, line; /* kept: another grew from it; line: the chosen one, or an ancestor of it */
} pn_page_entry;

typedef struct pn_page_round { /* a column */
    int attention, none;       /* of its best */
    int first_order, last_order, n, column;
    const pn_page_entry *best; /* borrowed */
} pn_page_round;

typedef struct pn_page_objective {                 /* what ranks paths */
    const char *text;                              /* borrowed */
    char task[PN_PAGE_NAME], metric[PN_PAGE_NAME]; /* "" unless it is one metric of one task, as that reads */
    bool ascending;
} pn_page_objective;

/* The paths of one stage of the search: a search places each kind of layer, or several together, in a stage, and stages
 * may differ in their objectives. */
typedef struct pn_page_paths {
    pn_page_objective objective;
    const json_t *stage; /* borrowed; NULL: the result names no stages */
    pn_page_path chosen; /* what the stage ended with */
    pn_page_entry *at;   /* owned; best first */
    size_t n;
    pn_page_entry **by_order; /* owned; NULL where an entry could not be read */
    int n_by_order;
    pn_page_round *round; /* owned */
    int n_rounds;
    pn_page_entry *last; /* the chosen one, borrowed; NULL: not among them */
    bool has_rounds, has_parents, has_cache, any_none, any_complete;
} pn_page_paths;
typedef struct pn_page {
    const json_t *root;
    const json_t *speed; /* speed.json; NULL: none */
    pn_buf *out;
    pn_page_path base, winner;                /* n 0: not in the result */
    char block[PN_PAGE_BLOCKS][PN_PAGE_NAME]; /* in order of appearance; the index picks the colour */
    int n_blocks;
    pn_page_objective objective;
    const json_t *teacher_row, *uniform_row, *winner_row; /* of the table; NULL: none */
    pn_page_paths stage[PN_PAGE_STAGES];
    int n_stages;
    pn_buf *contents; /* links to the sections */
} pn_page;

/* Appends the whole page; speed: NULL when there is none. */
pn_status pn_page_render(const json_t *result, const json_t *speed, pn_buf *out);

/* ---- report_html.c: text ---- */

/* printf whose %s arguments are HTML-escaped (the format itself is not). Conversions: %s %d %ld %lld %f %g %%, with
 * flags, width and precision on the numeric ones. Control characters become U+FFFD. */
void pn_html(pn_buf *b, const char *fmt, ...) PN_PRINTF(2, 3);
/* At most `most` characters of text, the last one an ellipsis when it was longer; buffer of PN_PAGE_NAME bytes. */
/* The block's type in a candidate's name: "jet" of "jet_2". buffer: PN_PAGE_NAME. */
const char *pn_page_type_name(const char *candidate, char *buffer);
const char *pn_page_short(const char *text, int most, char *buffer);
/* A value of a metric as tables show it: shares in percent, others with three decimals; the minus is a minus sign. */
const char *pn_page_value(const char *metric, double value, char buffer[PN_PAGE_TEXT]);
/* The same with a sign, percentage points for shares. */
const char *pn_page_gain(const char *metric, double value, char buffer[PN_PAGE_TEXT]);
/* A path's text, escaped, that may break after its commas. */
void pn_page_path_text(pn_buf *b, const char *path);
const char *pn_page_bytes(double n_bytes, char buffer[PN_PAGE_TEXT]);  /* "64.0 MiB" */
const char *pn_page_context(double tokens, char buffer[PN_PAGE_TEXT]); /* "256K" */
const char *pn_page_amount(double value, char buffer[PN_PAGE_TEXT]);   /* "17.3k": three digits; value >= 0 */
void pn_page_section(pn_page *r, const char *id, const char *title);   /* <section><h2>..</h2>; close with */
void pn_page_section_end(pn_page *r);
extern const char pn_page_style[];

/* ---- report_data.c: reading the result ---- */

/* A finite number of reasonable size (below 1e100, so that differences and sums stay finite; 0 when below
 * 1e-100, so that quotients do), or false. */
bool pn_page_number(const json_t *object, const char *key, double *out);
const char *pn_page_string(const json_t *object, const char *key); /* NULL: none */
/* Reads `path` ("jet*3,attention") of an object, or its list `layers`. */
bool pn_page_path_read(const json_t *object, pn_page_path *out);
bool pn_page_path_equal(const pn_page_path *a, const pn_page_path *b);
int pn_page_path_count(const pn_page_path *p, const char *block);
/* Index of a block's name, which picks its colour; a name not seen before is added, or is the last one's twin when
 * there is no room. */
int pn_page_block(pn_page *r, const char *name);
/* CSS class of that colour. */
const char *pn_page_block_class(pn_page *r, const char *name);
/* mean, min, max of a table row's metric; min and max are the mean where they are missing. */
typedef struct pn_page_cell {
    double mean, min, max;
    int n_samples;
} pn_page_cell;
bool pn_page_cell_read(const json_t *row, const char *task, const char *metric, pn_page_cell *out);
/* Per held-out sample; NULL: not there. Borrowed. */
const json_t *pn_page_cell_values(const json_t *row, const char *task, const char *metric);
bool pn_page_ascending(const char *metric); /* larger is better; twin of pn_metric_ascending in search/task.h */
bool pn_page_is_share(const char *metric);  /* a share of one, shown in percent */
bool pn_page_is_chance(const char *metric);
/* The text of an object's `objective`, and which way it improves as far as that tells. */
void pn_page_objective_read(const json_t *object, pn_page_objective *out);
/* "recall.nll, lower is better" */
void pn_page_objective_caption(const pn_page_objective *o, char *buffer, size_t n);
/* The table's first row called `name` or "name, ...", of the asked kind; NULL: none. */
const json_t *pn_page_row(const pn_page *r, const char *name, bool distilled);

/* ---- report_paths.c: the search's history ---- */

void pn_page_paths_read(pn_page *r); /* into r->stage; needs winner and objective */
void pn_page_paths_free(pn_page *r);
/* "Stage 1: full_attention, by recall.nll", when there are several. */
void pn_page_stage_heading(pn_page *r, int stage);
pn_page_entry *pn_page_entry_of(const pn_page_paths *h, int order); /* NULL: none */

/* ---- report_plot.c: drawing ---- */

typedef struct pn_plot { /* data range and its box in SVG units */
    double x_min, x_max, y_min, y_max;
    double left, top, width, height;
} pn_plot;
double pn_plot_x(const pn_plot *p, double x);
double pn_plot_y(const pn_plot *p, double y);
/* Widens an empty range, and both ranges a little when `pad`. */
void pn_plot_settle(pn_plot *p, bool pad);
/* Opens <div class="scroll"><svg>. In a narrow window it shrinks, or scrolls at its full size. */
void pn_plot_open(pn_buf *b, double width, double height, bool shrinks, const char *title);
void pn_plot_close(pn_buf *b);
/* Grid lines and labels; caption in the upper left corner. */
void pn_plot_y_axis(pn_buf *b, const pn_plot *p, const char *caption);
void pn_plot_x_axis(pn_buf *b, const pn_plot *p, const char *caption);
/* The same for an axis of binary logarithms: each tick is written as text(2^x). */
typedef const char *(*pn_plot_text)(double value, char buffer[PN_PAGE_TEXT]);
void pn_plot_x_axis_log2(pn_buf *b, const pn_plot *p, const char *caption, pn_plot_text text);
void pn_plot_y_axis_log2(pn_buf *b, const pn_plot *p, const char *caption, pn_plot_text text);
/* A row of small boxes, one per layer. */
void pn_page_strip(pn_page *r, const pn_page_path *p);
/* A path as columns of boxes from the first layer to the last, beside the base it came from (NULL: alone). */
void pn_page_stack_columns(pn_page *r, const pn_page_path *path, const pn_page_path *base);
/* Names the blocks' colours: those of `only` (per block); NULL: all, with their counts in the hybrid. */
void pn_page_legend(pn_page *r, const bool *only);

/* ---- report_training.c: the page of finetune ---- */

/* Whether the result is of finetune. */
bool pn_page_is_training(const json_t *result);
void pn_page_training_summary(pn_page *r);
void pn_page_training_heldout(pn_page *r);
void pn_page_training_curves(pn_page *r);

/* ---- the sections, in page order ---- */

void pn_page_summary(pn_page *r);
void pn_page_stack(pn_page *r);
void pn_page_table(pn_page *r);
void pn_page_distances(pn_page *r);
void pn_page_cache(pn_page *r);
void pn_page_speed(pn_page *r);
/* For the head of the page, where speed.json tells: a sentence, a large number. */
void pn_page_speed_sentence(pn_page *r);
void pn_page_speed_tile(pn_page *r);
void pn_page_importance(pn_page *r);
void pn_page_history(pn_page *r);
void pn_page_pareto(pn_page *r);
void pn_page_selectors(pn_page *r);
void pn_page_gates(pn_page *r);
void pn_page_later_stage(pn_page *r, const char *stage, const char *title);
void pn_page_local_errors(pn_page *r);
void pn_page_curve(pn_page *r, const char *key, const char *id, const char *title);
void pn_page_configuration(pn_page *r);

#endif
