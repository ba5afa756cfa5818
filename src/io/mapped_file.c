#include "mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static pn_status map(const char *path, int fd, pn_mapped_file *out) {
    struct stat st;
    PN_CHECK(fstat(fd, &st) == 0, PN_IO, "%s: %s", path, strerror(errno));
    PN_CHECK(S_ISREG(st.st_mode), PN_IO, "%s: not a regular file", path);
    if (st.st_size == 0) return PN_OK;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    PN_CHECK(p != MAP_FAILED, PN_IO, "%s: cannot be mapped into memory: %s", path, strerror(errno));
    out->data = p;
    out->n_bytes = (size_t)st.st_size;
    return PN_OK;
}

pn_status pn_mapped_file_open(const char *path, pn_mapped_file *out) {
    memset(out, 0, sizeof *out);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO is refused, not waited for */
    PN_CHECK(fd >= 0, PN_IO, "%s: %s", path, strerror(errno));
    pn_status s = map(path, fd, out);
    close(fd); /* the mapping keeps the file */
    return s;
}

void pn_mapped_file_close(pn_mapped_file *m) {
    if (m->data) munmap((void *)m->data, m->n_bytes);
    memset(m, 0, sizeof *m);
}
