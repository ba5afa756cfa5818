/* manifest.json of teacher rows: what is accepted names only its own shards, and what it would have a reader allocate
 * fits its files. */
#include "fuzz.h"
#include "teacher_rows_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_teacher_manifest m;
    pn_status s = pn_teacher_manifest_parse("manifest.json", (const char *)data, n_bytes, &m);
    if (s) return fuzz_refused(s);
    FUZZ_ASSERT(m.n_shards >= 1 && m.info.k >= 1 && m.info.k <= m.info.vocab);
    int64_t rows = 0, entries;
    for (int64_t i = 0; i < m.n_shards; i++) {
        FUZZ_ASSERT(!strchr(m.shards[i].file, '/'));
        FUZZ_ASSERT(!__builtin_mul_overflow(m.shards[i].rows, pn_teacher_row_entries(&m.info), &entries));
        FUZZ_ASSERT(entries <= m.shards[i].n_bytes / PN_TEACHER_ENTRY_BYTES);
        FUZZ_ASSERT(!__builtin_add_overflow(rows, m.shards[i].rows, &rows));
    }
    FUZZ_ASSERT(rows == pn_teacher_manifest_rows(&m));
    pn_teacher_manifest_free(&m);
    return 0;
}
