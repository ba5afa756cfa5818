#include "run_dir.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "monitor.h"

enum { CONFIG_LIMIT = 1 << 20 };

/* The config as text without its origin comments: what must be equal for a run to go on. */
static void strip_origins(char *text) {
    char *to = text;
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n'), *next = end ? end + 1 : line + strlen(line);
        if (end) *end = '\0';
        char *comment = NULL;
        for (char *p = line; (p = strstr(p, "  # ")); p++) comment = p;
        size_t n = comment ? (size_t)(comment - line) : strlen(line);
        memmove(to, line, n);
        to += n;
        *to++ = '\n';
        line = next;
    }
    *to = '\0';
}

static pn_status resolved(const pn_config *config, char **text, size_t *n) {
    FILE *f = open_memstream(text, n);
    PN_CHECK(f, PN_MEMORY, "out of memory");
    pn_config_print(config, f);
    PN_CHECK(!fclose(f) && *text, PN_MEMORY, "out of memory");
    return PN_OK;
}

/* Whether the earlier run's config says the same. */
static pn_status same_config(const char *file, const char *now, bool *same) {
    char *before, *copy = strdup(now);
    size_t n;
    PN_CHECK(copy, PN_MEMORY, "out of memory");
    pn_status s = pn_file_read(file, CONFIG_LIMIT, &before, &n);
    if (!s) {
        strip_origins(before);
        strip_origins(copy);
        *same = !strcmp(before, copy);
        free(before);
    }
    free(copy);
    return s;
}

pn_status pn_run_dir_file(const pn_run_dir *run, const char *name, char *out) {
    return pn_path_join(out, run->path, name);
}

pn_status pn_run_dir_open(const char *path, const pn_config *config, pn_run_dir *out) {
    *out = (pn_run_dir){ 0 };
    PN_CHECK(path && *path && strlen(path) < PN_PATH_MAX, PN_USAGE, "output: name the directory of this run");
    strcpy(out->path, path);
    char file[PN_PATH_MAX], log[PN_PATH_MAX], events[PN_PATH_MAX], *text = NULL;
    size_t n;
    PN_TRY(pn_run_dir_file(out, "config.yaml", file));
    PN_TRY(pn_run_dir_file(out, "log.jsonl", log));
    PN_TRY(pn_run_dir_file(out, "tensorboard", events));
    PN_TRY(resolved(config, &text, &n));
    pn_status s = PN_OK;
    if (pn_file_exists(file)) {
        bool same = false;
        s = same_config(file, text, &same);
        if (!s && !same)
            s = pn_fail_at(__FILE__, __LINE__, PN_USAGE,
                           "%s holds a run with other settings; use another output directory, or remove this one",
                           path);
        out->resumed = true;
    } else {
        pn_directory_writer fresh = { 0 }; /* refuses a directory with something else in it */
        s = pn_directory_writer_open(path, &fresh);
        if (!s) s = pn_directory_writer_commit(&fresh);
        pn_directory_writer_abort(&fresh);
        if (!s) s = pn_file_write(file, text, n);
    }
    free(text);
    PN_TRY(s);
    PN_TRY(pn_log_open(log));
    PN_TRY(pn_monitor_open(events));
    return PN_OK;
}

pn_status pn_run_dir_config(const pn_run_dir *run, char **text) {
    char file[PN_PATH_MAX];
    size_t n;
    PN_TRY(pn_run_dir_file(run, "config.yaml", file));
    PN_TRY(pn_file_read(file, CONFIG_LIMIT, text, &n));
    strip_origins(*text);
    static const char output[] = "output:";
    for (char *line = *text; *line;) {
        char *next = strchr(line, '\n');
        next = next ? next + 1 : line + strlen(line);
        if (strncmp(line, output, sizeof output - 1))
            line = next;
        else
            memmove(line, next, strlen(next) + 1);
    }
    return PN_OK;
}
