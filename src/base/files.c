#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool pn_file_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool pn_is_directory(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

pn_status pn_path_join(char *out, const char *dir, const char *name) {
    size_t n = strlen(dir);
    int wrote = snprintf(out, PN_PATH_MAX, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    PN_CHECK(wrote > 0 && wrote < PN_PATH_MAX, PN_USAGE, "path %.100s.../%.100s is too long", dir, name);
    return PN_OK;
}

pn_status pn_make_directories(const char *path) {
    char partial[PN_PATH_MAX];
    size_t n = strlen(path);
    PN_CHECK(n && n < sizeof partial, PN_USAGE, "\"%.100s\" is no usable directory name", path);
    memcpy(partial, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (partial[i] != '/' && partial[i] != '\0') continue;
        char keep = partial[i];
        partial[i] = '\0';
        if (mkdir(partial, 0777) && !(errno == EEXIST && pn_is_directory(partial)))
            PN_FAIL(PN_IO, "%s: cannot make this directory: %s", partial, strerror(errno));
        partial[i] = keep;
    }
    return PN_OK;
}

pn_status pn_remove_tree(const char *path) {
    struct stat s;
    if (lstat(path, &s)) return PN_OK;
    if (S_ISDIR(s.st_mode)) {
        DIR *d = opendir(path);
        PN_CHECK(d, PN_IO, "%s: cannot open to remove: %s", path, strerror(errno));
        pn_status status = PN_OK;
        for (struct dirent *e; !status && (e = readdir(d));) {
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
            char below[PN_PATH_MAX];
            status = pn_path_join(below, path, e->d_name);
            if (!status) status = pn_remove_tree(below);
        }
        closedir(d);
        PN_TRY(status);
    }
    PN_CHECK(!remove(path), PN_IO, "%s: cannot remove: %s", path, strerror(errno));
    return PN_OK;
}

pn_status pn_file_read(const char *path, size_t limit, char **data, size_t *n_bytes) {
    FILE *f = fopen(path, "rbe");
    PN_CHECK(f, PN_IO, "%s: cannot open: %s", path, strerror(errno));
    size_t n = 0, cap = 0;
    char *buffer = NULL;
    pn_status s = PN_OK;
    while (!s) {
        if (n == cap) {
            cap = cap ? 2 * cap : 1 << 16;
            char *grown = realloc(buffer, cap + 1);
            if (!grown) {
                s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "%s: out of memory after %zu bytes", path, n);
                break;
            }
            buffer = grown;
        }
        size_t got = fread(buffer + n, 1, cap - n, f);
        n += got;
        if (n > limit)
            s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: larger than the %zu bytes such a file may have", path,
                           limit);
        if (!got) break;
    }
    if (!s && ferror(f)) s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot read: %s", path, strerror(errno));
    fclose(f);
    if (s) {
        free(buffer);
        return s;
    }
    buffer[n] = '\0';
    *data = buffer;
    *n_bytes = n;
    return PN_OK;
}

pn_status pn_file_writer_open(const char *path, pn_file_writer *w) {
    memset(w, 0, sizeof *w);
    PN_CHECK(strlen(path) < PN_PATH_MAX, PN_USAGE, "path %.100s... is too long", path);
    strcpy(w->path, path);
    snprintf(w->temporary, sizeof w->temporary, "%s.tmp", path);
    w->file = fopen(w->temporary, "wbe");
    PN_CHECK(w->file, PN_IO, "%s: cannot write: %s", path, strerror(errno));
    return PN_OK;
}

pn_status pn_file_writer_commit(pn_file_writer *w) {
    bool ok = !ferror(w->file) && !fflush(w->file) && !fsync(fileno(w->file));
    int error = errno;
    ok = !fclose(w->file) && ok;
    w->file = NULL;
    if (ok && !rename(w->temporary, w->path)) return PN_OK;
    if (ok) error = errno;
    remove(w->temporary);
    PN_FAIL(PN_IO, "%s: cannot write: %s; nothing was changed", w->path, strerror(error));
}

void pn_file_writer_abort(pn_file_writer *w) {
    if (!w->file) return;
    fclose(w->file);
    w->file = NULL;
    remove(w->temporary);
}

pn_status pn_file_write(const char *path, const void *data, size_t n_bytes) {
    pn_file_writer w;
    PN_TRY(pn_file_writer_open(path, &w));
    fwrite(data, 1, n_bytes, w.file); /* commit checks */
    PN_TRY(pn_file_writer_commit(&w));
    return PN_OK;
}

static bool empty_directory(const char *path) {
    DIR *d = opendir(path);
    if (!d) return false;
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n == 0;
}

pn_status pn_directory_writer_open(const char *path, pn_directory_writer *w) {
    memset(w, 0, sizeof *w);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    PN_CHECK(n && n < PN_PATH_MAX - 8, PN_USAGE, "\"%.100s\" is no usable directory name", path);
    memcpy(w->path, path, n);
    PN_CHECK(!pn_file_exists(w->path) || empty_directory(w->path), PN_USAGE,
             "%s exists and is not an empty directory; choose another or remove it first", w->path);
    snprintf(w->temporary, sizeof w->temporary, "%s.tmp", w->path);
    PN_TRY(pn_remove_tree(w->temporary));
    PN_TRY(pn_make_directories(w->temporary));
    return PN_OK;
}

pn_status pn_directory_writer_commit(pn_directory_writer *w) {
    if (pn_is_directory(w->path)) rmdir(w->path);
    if (rename(w->temporary, w->path)) {
        int error = errno;
        pn_directory_writer_abort(w);
        PN_FAIL(PN_IO, "%s: cannot put the finished directory in place: %s", w->path, strerror(error));
    }
    w->temporary[0] = '\0';
    return PN_OK;
}

void pn_directory_writer_abort(pn_directory_writer *w) {
    if (w->temporary[0]) pn_remove_tree(w->temporary);
    w->temporary[0] = '\0';
}
