#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

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

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path) && errno != ENOENT;
}

pn_status pn_remove_tree(const char *path) {
    enum { OPEN_DIRECTORIES = 32 };
    int failed = nftw(path, remove_entry, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS);
    PN_CHECK(!failed || errno == ENOENT, PN_IO, "%s: cannot remove: %s", path, strerror(errno));
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
    fclose(f); /* read only: nothing to lose */
    if (s) {
        free(buffer);
        return s;
    }
    buffer[n] = '\0';
    *data = buffer;
    *n_bytes = n;
    return PN_OK;
}

pn_status pn_file_hash(const char *path, uint64_t *hash, int64_t *n_bytes) {
    enum { BLOCK = 1 << 20 };
    FILE *f = fopen(path, "rbe");
    PN_CHECK(f, PN_IO, "%s: cannot read the file: %s", path, strerror(errno));
    char *block = malloc(BLOCK);
    XXH3_state_t *state = XXH3_createState();
    pn_status s = PN_OK;
    if (!block || !state) PN_FAIL_GOTO(s, PN_MEMORY, done, "%s: out of memory", path);
    XXH3_64bits_reset(state);
    *n_bytes = 0;
    for (size_t n; (n = fread(block, 1, BLOCK, f)) > 0; *n_bytes += (int64_t)n) XXH3_64bits_update(state, block, n);
    if (ferror(f)) PN_FAIL_GOTO(s, PN_IO, done, "%s: cannot read the file: %s", path, strerror(errno));
    *hash = XXH3_64bits_digest(state);
done:
    XXH3_freeState(state);
    free(block);
    fclose(f);
    return s;
}

pn_status pn_file_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    PN_CHECK(fd >= 0, PN_IO, "%s: cannot open what was just written: %s", path, strerror(errno));
    int failed = fsync(fd), why = errno;
    close(fd);
    PN_CHECK(!failed, PN_IO, "%s: cannot finish writing: %s", path, strerror(why));
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

/* File systems that cannot sync a directory say so; then a rename is as durable as they make it. */
void pn_directory_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

/* A rename lasts once the directory that holds the name is on disk. */
static void sync_parent(const char *path) {
    char parent[PN_PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (slash)
        memcpy(parent, path, n ? n : ++n);
    else
        parent[n++] = '.';
    parent[n] = '\0';
    pn_directory_sync(parent);
}

pn_status pn_file_writer_commit(pn_file_writer *w) {
    const char *why = ferror(w->file) ? "an earlier write failed; is the disk full?" : NULL;
    if (!why && (fflush(w->file) || fsync(fileno(w->file)))) why = strerror(errno);
    if (fclose(w->file) && !why) why = strerror(errno);
    w->file = NULL;
    if (!why && rename(w->temporary, w->path)) why = strerror(errno);
    if (!why) {
        sync_parent(w->path);
        return PN_OK;
    }
    pn_status s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot write: %s; nothing was changed", w->path, why);
    remove(w->temporary);
    return s;
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

/* Makes the directory aside and locks it; the lock of a process that died is gone, and what it left is removed unless
 * it is to be kept. */
static pn_status claim(pn_directory_writer *w, bool keep) {
    for (int attempt = 0; attempt < 2; attempt++) {
        int error = mkdir(w->temporary, 0777) ? errno : 0;
        PN_CHECK(!error || error == EEXIST, PN_IO, "%s: cannot make this directory: %s", w->temporary, strerror(error));
        w->lock = open(w->temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        PN_CHECK(w->lock >= 0, PN_IO, "%s: cannot open this directory: %s; remove it", w->temporary, strerror(errno));
        if (flock(w->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
            close(w->lock);
            PN_FAIL(PN_USAGE, "%s: another process is writing this directory (%s); wait for it or choose another",
                    w->path, w->temporary);
        }
        if (!error || keep) return PN_OK;
        pn_status s = pn_remove_tree(w->temporary);
        close(w->lock);
        PN_TRY(s);
    }
    PN_FAIL(PN_USAGE, "%s: another process is writing this directory; wait for it or choose another", w->path);
}

static pn_status open_aside(const char *path, pn_directory_writer *w, bool keep) {
    memset(w, 0, sizeof *w);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    PN_CHECK(n && n < PN_PATH_MAX - 24, PN_USAGE, "\"%.100s\" is no usable directory name", path);
    memcpy(w->path, path, n);
    PN_CHECK(!pn_file_exists(w->path) || empty_directory(w->path), PN_USAGE,
             "%s exists and is not an empty directory; choose another or remove it first", w->path);
    char parent[PN_PATH_MAX];
    memcpy(parent, w->path, n + 1);
    char *slash = strrchr(parent, '/');
    if (slash && slash > parent) {
        *slash = '\0';
        PN_TRY(pn_make_directories(parent));
    }
    snprintf(w->temporary, sizeof w->temporary, "%s.postnas-partial", w->path);
    pn_status s = claim(w, keep);
    if (s) w->temporary[0] = '\0'; /* not ours to remove */
    return s;
}

pn_status pn_directory_writer_open(const char *path, pn_directory_writer *w) {
    return open_aside(path, w, false);
}

pn_status pn_directory_writer_resume(const char *path, pn_directory_writer *w) {
    return open_aside(path, w, true);
}

pn_status pn_directory_writer_commit(pn_directory_writer *w) {
    fsync(w->lock);
    /* Replaces an empty directory; one that was filled meanwhile stays. */
    if (rename(w->temporary, w->path)) {
        int error = errno;
        pn_directory_writer_abort(w);
        PN_FAIL(PN_IO, "%s: cannot put the finished directory in place: %s", w->path, strerror(error));
    }
    close(w->lock);
    w->temporary[0] = '\0';
    sync_parent(w->path);
    return PN_OK;
}

void pn_directory_writer_abort(pn_directory_writer *w) {
    if (!w->temporary[0]) return;
    pn_remove_tree(w->temporary);
    close(w->lock);
    w->temporary[0] = '\0';
}

void pn_directory_writer_keep(pn_directory_writer *w) {
    if (!w->temporary[0]) return;
    close(w->lock);
    w->temporary[0] = '\0';
}

pn_status pn_directory_replace(const char *fresh, const char *path) {
    char before[PN_PATH_MAX];
    int n = snprintf(before, sizeof before, "%s.postnas-old", path);
    PN_CHECK(n > 0 && (size_t)n < sizeof before, PN_USAGE, "path %.100s... is too long", path);
    PN_TRY(pn_remove_tree(before));
    PN_CHECK(!rename(path, before) || errno == ENOENT, PN_IO, "%s: cannot move this directory away: %s", path,
             strerror(errno));
    PN_CHECK(!rename(fresh, path), PN_IO, "%s: cannot put the finished directory in place: %s", path, strerror(errno));
    sync_parent(path);
    return pn_remove_tree(before);
}
