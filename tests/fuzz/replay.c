/* main() of a fuzz target in builds without libFuzzer: replays the files of the directories named as arguments. */
#include <dirent.h>
#include <errno.h>

#include "files.h"
#include "fuzz.h"

static int replay(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return errno == ENOENT ? 0 : -1; /* a format without found cases has no such directory */
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[PN_PATH_MAX], *data;
        size_t n_bytes;
        if (e->d_name[0] == '.') continue;
        if (pn_path_join(path, dir, e->d_name) || pn_file_read(path, 1 << 20, &data, &n_bytes)) {
            pn_error_print(stderr, 0);
            exit(EXIT_FAILURE);
        }
        char *exact = malloc(n_bytes ? n_bytes : 1); /* no NUL behind it: a read past the end is one */
        if (!exact) exit(EXIT_FAILURE);
        memcpy(exact, data, n_bytes);
        free(data);
        printf("%s\n", path);
        fflush(stdout);
        LLVMFuzzerTestOneInput((const uint8_t *)exact, n_bytes);
        free(exact);
        n++;
    }
    closedir(d);
    return n;
}

int main(int argc, char **argv) {
    int n = 0;
    for (int i = 1; i < argc; i++) {
        int here = replay(argv[i]);
        if (here < 0) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            return EXIT_FAILURE;
        }
        n += here;
    }
    printf("%d files replayed\n", n);
    return n ? EXIT_SUCCESS : EXIT_FAILURE;
}
