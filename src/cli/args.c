#include "args.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"

enum { FLAGS_MAX = 64, LONG_BASE = 1000 };

static const pn_flag common[] = {
    { .name = "threads",
      .letter = 't',
      .value = "N",
      .help = "processor threads (default: OMP_NUM_THREADS, else all)" },
    { .name = "quiet", .letter = 'q', .help = "no progress on standard error, only warnings and errors" },
    { .name = "verbose", .letter = 'v', .help = "say where in the program an error came from" },
    { .name = "help", .letter = 'h', .help = "this text" },
    PN_FLAG_END,
};

/* The command's flags, then the common ones. */
static int all_flags(const pn_command *command, const pn_flag **out) {
    int n = 0;
    for (const pn_flag *f = command->flags; f && f->name; f++) {
        PN_ASSERT(n < FLAGS_MAX);
        out[n++] = f;
    }
    for (const pn_flag *f = common; f->name; f++) {
        PN_ASSERT(n < FLAGS_MAX);
        out[n++] = f;
    }
    return n;
}

static const pn_flag *by_letter(const pn_flag *const *flags, int n, int letter) {
    for (int i = 0; i < n; i++)
        if (letter && flags[i]->letter == letter) return flags[i];
    return NULL;
}

static pn_status unknown_option(const pn_command *command, const pn_flag *const *flags, int n, const char *word) {
    if (optopt) /* a letter; getopt_long leaves 0 for a long option it does not know */
        PN_FAIL(PN_USAGE, "postnas %s: unknown option -%c; see `postnas %s --help`", command->name, optopt,
                command->name);
    char name[64];
    size_t len = strcspn(word + 2, "=");
    snprintf(name, sizeof name, "%.*s", len < sizeof name ? (int)len : (int)sizeof name - 1, word + 2);
    const char *names[FLAGS_MAX], *first = NULL, *second = NULL;
    for (int i = 0; i < n; i++) {
        names[i] = flags[i]->name;
        if (strncmp(flags[i]->name, name, strlen(name))) continue;
        if (!first)
            first = flags[i]->name;
        else
            second = flags[i]->name;
    }
    if (second)
        PN_FAIL(PN_USAGE, "postnas %s: --%s may mean --%s or --%s; write more of it", command->name, name, first,
                second);
    const char *near = pn_nearest(name, names, n);
    PN_FAIL(PN_USAGE, "postnas %s: unknown option --%s; %s%s%ssee `postnas %s --help`", command->name, name,
            near ? "did you mean --" : "", near ? near : "", near ? "? " : "", command->name);
}

static pn_status parse(const pn_command *command, int argc, char **argv, pn_args *out) {
    const pn_flag *flags[FLAGS_MAX];
    struct option options[FLAGS_MAX + 1] = { 0 };
    char letters[2 * FLAGS_MAX + 2] = ":"; /* a missing value gives ':' */
    int n = all_flags(command, flags);
    for (int i = 0; i < n; i++) {
        options[i] = (struct option){ .name = flags[i]->name,
                                      .has_arg = flags[i]->value ? required_argument : no_argument,
                                      .val = LONG_BASE + i };
        size_t len = strlen(letters);
        if (flags[i]->letter) snprintf(letters + len, 3, "%c%s", flags[i]->letter, flags[i]->value ? ":" : "");
    }
    opterr = 0;
    optind = 0; /* start afresh */
    for (;;) {
        int c = getopt_long(argc, argv, letters, options, NULL);
        if (c == -1) break;
        const pn_flag *flag = c >= LONG_BASE ? flags[c - LONG_BASE] : by_letter(flags, n, c);
        if (c == ':' || (c == '?' && optopt >= LONG_BASE)) {
            flag = optopt >= LONG_BASE ? flags[optopt - LONG_BASE] : by_letter(flags, n, optopt);
            PN_FAIL(PN_USAGE, "postnas %s: --%s takes %s%s", command->name, flag->name,
                    flag->value ? "a value: " : "no value", flag->value ? flag->value : "");
        }
        if (c == '?') return unknown_option(command, flags, n, argv[optind - 1]);
        out->given[out->n_given].flag = flag;
        out->given[out->n_given++].value = flag->value ? optarg : NULL;
    }
    out->operand = argv + optind;
    out->n_operands = argc - optind;
    if (pn_args_has(out, "help")) return PN_OK;
    PN_CHECK(out->n_operands >= command->min_operands, PN_USAGE, "postnas %s: too few words; usage: postnas %s %s",
             command->name, command->name, command->usage);
    PN_CHECK(command->max_operands < 0 || out->n_operands <= command->max_operands, PN_USAGE,
             "postnas %s: unexpected word \"%s\"; usage: postnas %s %s", command->name,
             out->operand[out->n_operands > command->max_operands ? command->max_operands : 0], command->name,
             command->usage);
    return PN_OK;
}

pn_status pn_args_parse(const pn_command *command, int argc, char **argv, pn_args *out) {
    *out = (pn_args){ .command = command };
    /* One word may hold several letters, so words do not bound the options given; characters do. */
    size_t most = 1;
    for (int i = 1; i < argc; i++) most += strlen(argv[i]);
    out->given = calloc(most, sizeof *out->given);
    PN_CHECK(out->given, PN_MEMORY, "out of memory");
    pn_status s = parse(command, argc, argv, out);
    if (s) pn_args_free(out);
    return s;
}

void pn_args_free(pn_args *a) {
    free(a->given);
    memset(a, 0, sizeof *a);
}

static const pn_flag *flag_named(const pn_args *a, const char *name) {
    const pn_flag *flags[FLAGS_MAX];
    int n = all_flags(a->command, flags);
    for (int i = 0; i < n; i++)
        if (!strcmp(flags[i]->name, name)) return flags[i];
    return NULL;
}

const char *pn_args_nth(const pn_args *a, const char *name, int nth) {
    const pn_flag *flag = flag_named(a, name);
    PN_ASSERT(flag && flag->value);
    for (int i = 0; i < a->n_given; i++)
        if (a->given[i].flag == flag && nth-- == 0) return a->given[i].value;
    return NULL;
}

const char *pn_args_value(const pn_args *a, const char *name) {
    const char *last = NULL, *next;
    for (int i = 0; (next = pn_args_nth(a, name, i)); i++) last = next;
    return last ? last : flag_named(a, name)->def;
}

bool pn_args_has(const pn_args *a, const char *name) {
    const pn_flag *flag = flag_named(a, name);
    PN_ASSERT(flag);
    for (int i = 0; i < a->n_given; i++)
        if (a->given[i].flag == flag) return true;
    return false;
}

static pn_status parse_number(const pn_args *a, const char *name, const pn_option *row, void *out) {
    const char *text = pn_args_value(a, name);
    if (!text) return PN_OK;
    char where[96];
    snprintf(where, sizeof where, "postnas %s", a->command->name);
    return pn_option_parse(row, where, text, 0, out);
}

pn_status pn_args_i64(const pn_args *a, const char *name, int64_t min, int64_t max, int64_t *out) {
    char dashed[64];
    snprintf(dashed, sizeof dashed, "--%s", name);
    pn_option row = { .name = dashed, .kind = PN_OPTION_INT, .min = (double)min, .max = (double)max };
    return parse_number(a, name, &row, out);
}

pn_status pn_args_f64(const pn_args *a, const char *name, double min, double max, double *out) {
    char dashed[64];
    snprintf(dashed, sizeof dashed, "--%s", name);
    pn_option row = { .name = dashed, .kind = PN_OPTION_FLOAT, .min = min, .max = max };
    return parse_number(a, name, &row, out);
}

/* The option's value, when the command has it and it is given. */
static const char *given(const pn_args *a, const char *name) {
    for (int i = 0; i < a->n_given; i++)
        if (!strcmp(a->given[i].flag->name, name)) return pn_args_value(a, name);
    return NULL;
}

static pn_status set_compute(const pn_args *a, pn_config *c) {
    for (const pn_option *row = pn_compute_option_table; row->name; row++) {
        char assignment[128];
        const char *value = given(a, row->name);
        if (!value) continue;
        snprintf(assignment, sizeof assignment, "%s=%.64s", row->name, value);
        PN_TRY(pn_config_set(c, assignment));
    }
    return PN_OK;
}

pn_status pn_args_compute(const pn_args *a, pn_compute *out) {
    pn_compute_options o;
    char where[96];
    snprintf(where, sizeof where, "postnas %s", a->command->name);
    PN_TRY(pn_options_defaults(pn_compute_option_table, &o));
    for (const pn_option *row = pn_compute_option_table; row->name; row++) {
        char dashed[64];
        pn_option flag = *row;
        const char *value = given(a, row->name);
        if (!value) continue;
        snprintf(dashed, sizeof dashed, "--%s", row->name);
        flag.name = dashed;
        PN_TRY(pn_option_parse(&flag, where, value, 0, &o));
    }
    PN_TRY(pn_compute_open(&o, where, out));
    return PN_OK;
}

pn_status pn_args_backend(const pn_args *a, const char *flag, pn_compute *out) {
    const char *where = a->command->name, *backend = pn_args_value(a, flag), *dtype = pn_args_value(a, "dtype");
    const bool cuda = !strcmp(backend, pn_backend_name(PN_CUDA));
    PN_CHECK(cuda || !strcmp(backend, pn_backend_name(PN_CPU)), PN_USAGE, "postnas %s: --%s %s is neither %s nor %s",
             where, flag, backend, pn_backend_name(PN_CPU), pn_backend_name(PN_CUDA));
    *out = cuda ? (pn_compute){ PN_CUDA, PN_BF16 } : (pn_compute){ PN_CPU, PN_F32 };
    if (!dtype) return PN_OK;
    out->dtype = strcmp(dtype, pn_dtype_name(PN_BF16)) ? PN_F32 : PN_BF16;
    PN_CHECK(!strcmp(dtype, pn_dtype_name(out->dtype)), PN_USAGE, "postnas %s: --dtype %s is neither %s nor %s", where,
             dtype, pn_dtype_name(PN_F32), pn_dtype_name(PN_BF16));
    PN_CHECK(cuda || out->dtype == PN_F32, PN_USAGE, "postnas %s: the CPU computes in %s; --dtype %s needs --%s %s",
             where, pn_dtype_name(PN_F32), dtype, flag, pn_backend_name(PN_CUDA));
    return PN_OK;
}

pn_status pn_args_config(const pn_args *a, pn_config **out) {
    const char *file = pn_args_value(a, "config"), *assignment;
    if (file)
        PN_TRY(pn_config_load(file, out));
    else
        PN_TRY(pn_config_parse("command line", "", out));
    for (int i = 0; (assignment = pn_args_nth(a, "set", i)); i++) {
        pn_status s = pn_config_set(*out, assignment);
        if (s) {
            pn_config_destroy(out);
            return s;
        }
    }
    pn_status s = set_compute(a, *out);
    if (s) pn_config_destroy(out);
    return s;
}

/* Two columns: "  -c, --config FILE" and what it is. */
static void print_options(const pn_command *command, FILE *out) {
    const pn_flag *flags[FLAGS_MAX];
    int n = all_flags(command, flags), width = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n; i++) {
            const pn_flag *f = flags[i];
            char left[96];
            int len =
                snprintf(left, sizeof left, "  %c%c%c --%s%s%s", f->letter ? '-' : ' ', f->letter ? f->letter : ' ',
                         f->letter ? ',' : ' ', f->name, f->value ? " " : "", f->value ? f->value : "");
            if (pass == 0)
                width = len > width ? len : width;
            else if (f->def)
                fprintf(out, "%-*s  %s (default %s)\n", width, left, f->help, f->def);
            else
                fprintf(out, "%-*s  %s\n", width, left, f->help);
        }
    }
}

static void print_lines(const char *title, const char *lines, FILE *out) {
    if (!lines) return;
    fprintf(out, "\n%s:\n", title);
    for (const char *p = lines; *p;) {
        size_t n = strcspn(p, "\n");
        fprintf(out, "  %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
}

void pn_args_help(const pn_command *command, FILE *out) {
    fprintf(out, "postnas %s: %s\n\nusage: postnas %s %s\n\n%s", command->name, command->summary, command->name,
            command->usage, command->help);
    print_lines("reads", command->reads, out);
    print_lines("writes", command->writes, out);
    fputs("\noptions:\n", out);
    print_options(command, out);
    print_lines("exit codes", pn_exit_codes_help, out);
    print_lines("see also", command->see, out);
}
