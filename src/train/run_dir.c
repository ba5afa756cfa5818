#include "run_dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "log.h"
#include "monitor.h"

enum { CONFIG_LIMIT = 1 << 20 };

/* The config as text without its origin comments. */
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
        if (end) *to++ = '\n'; /* the buffer has no room for one more than was there */
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

/* What may not differ is the same in the earlier run's config. */
static pn_status check_config(const pn_run_dir *run, const char *file, const pn_config *now) {
    pn_config *before;
    pn_config_difference first;
    PN_TRY(pn_config_load(file, &before));
    const bool differs = pn_config_differs(now, before, &first);
    pn_config_destroy(&before);
    PN_CHECK(!differs, PN_USAGE,
             "%s holds a run with other settings: %s is %s, and %s in that run; set it as it was, use another output "
             "directory, or remove this one",
             run->path, first.where, first.value, first.before);
    return PN_OK;
}

pn_status pn_run_dir_file(const pn_run_dir *run, const char *name, char *out) {
    return pn_path_join(out, run->path, name);
}

/* The directory appears with its config in it, so that one without is never ours. */
static pn_status create(const char *path, const char *config, size_t n) {
    char file[PN_PATH_MAX];
    pn_directory_writer fresh;
    PN_TRY(pn_directory_writer_open(path, &fresh)); /* refuses a directory with something else in it */
    pn_status s = pn_path_join(file, fresh.temporary, "config.yaml");
    if (!s) s = pn_file_write(file, config, n);
    if (!s) s = pn_directory_writer_commit(&fresh);
    pn_directory_writer_abort(&fresh);
    return s;
}

static pn_status take_lock(pn_run_dir *run) {
    char file[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(run, "lock", file));
    run->lock = fopen(file, "ae");
    PN_CHECK(run->lock, PN_IO, "%s: cannot write in this run: %s", file, strerror(errno));
    if (!flock(fileno(run->lock), LOCK_EX | LOCK_NB)) return PN_OK;
    PN_CHECK(
        errno != EWOULDBLOCK, PN_USAGE,
        "%s: another process is working in this directory; wait for it or stop it, or use another output directory",
        run->path);
    pn_warn("%s: this file system has no locks (%s): see to it that one process at a time works in this directory",
            run->path, strerror(errno));
    return PN_OK;
}

/* Locked, with the same config and inputs, log and monitor open. */
static pn_status enter(pn_run_dir *run, const char *config_file, const pn_config *config, const pn_run_input *inputs,
                       int n_inputs) {
    char log[PN_PATH_MAX], events[PN_PATH_MAX];
    struct stat st;
    PN_TRY(take_lock(run));
    PN_TRY(check_config(run, config_file, config));
    PN_TRY(pn_run_inputs_check(run, inputs, n_inputs));
    PN_TRY(pn_run_inputs_keep(run, inputs, n_inputs));
    PN_TRY(pn_run_dir_file(run, "log.jsonl", log));
    if (!stat(log, &st)) run->last_sign = (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
    PN_TRY(pn_log_open(log));
    PN_TRY(pn_run_dir_file(run, "tensorboard", events));
    PN_TRY(pn_monitor_open(events));
    return PN_OK;
}

pn_status pn_run_dir_open(const char *path, const pn_config *config, const pn_run_input *inputs, int n_inputs,
                          pn_run_dir *out) {
    *out = (pn_run_dir){ 0 };
    PN_CHECK(path && *path && strlen(path) < PN_PATH_MAX, PN_USAGE, "output: name the directory of this run");
    strcpy(out->path, path);
    char file[PN_PATH_MAX], *text = NULL;
    size_t n;
    PN_TRY(pn_run_dir_file(out, "config.yaml", file));
    PN_TRY(resolved(config, &text, &n));
    out->resumed = pn_file_exists(file);
    pn_status s = out->resumed ? PN_OK : create(path, text, n);
    if (!s) s = enter(out, file, config, inputs, n_inputs);
    free(text);
    if (s) pn_run_dir_close(out);
    PN_TRY(s);
    return PN_OK;
}

void pn_run_dir_close(pn_run_dir *run) {
    if (run->lock) fclose(run->lock); /* nothing was written to it */
    run->lock = NULL;
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
