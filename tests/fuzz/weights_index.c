/* model.safetensors.index.json beside one real shard, in a directory of this process. */
#include <unistd.h>

#include "files.h"
#include "fuzz.h"
#include "weights.h"

static char dir[64], index_path[128];

static void remove_directory(void) {
    pn_remove_tree(dir);
}

static void make_directory(void) {
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                                 "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[4,8]}}";
    char shard[8 + sizeof header - 1 + 8] = { (char)(sizeof header - 1) }, path[128];
    memcpy(shard + 8, header, sizeof header - 1);
    strcpy(dir, pn_is_directory("/dev/shm") ? "/dev/shm/postnas-fuzz-XXXXXX" : "/tmp/postnas-fuzz-XXXXXX");
    FUZZ_ASSERT(mkdtemp(dir));
    atexit(remove_directory);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    FUZZ_ASSERT(pn_file_write(path, shard, sizeof shard) == PN_OK);
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (!dir[0]) make_directory();
    FILE *f = fopen(index_path, "wb");
    FUZZ_ASSERT(f && fwrite(data, 1, n_bytes, f) == n_bytes && !fclose(f));
    pn_weights *w;
    pn_status s = pn_weights_open(index_path, &w);
    if (s) return fuzz_refused(s);
    for (int64_t i = 0; i < pn_weights_count(w); i++) {
        const char *name = pn_weights_info(w, i)->name;
        FUZZ_ASSERT(!strcmp(name, "a") || !strcmp(name, "b"));
        FUZZ_ASSERT(pn_weights_find(w, name) == pn_weights_info(w, i));
    }
    pn_weights_close(&w);
    return 0;
}
