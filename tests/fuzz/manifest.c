/* manifest.json of token shards: what is accepted names only its own shards and cannot overflow when summed. */
#include "fuzz.h"
#include "token_shards_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_token_manifest m;
    pn_status s = pn_token_manifest_parse("manifest.json", (const char *)data, n_bytes, &m);
    if (s) return fuzz_refused(s);
    int64_t n_tokens = 0;
    for (int64_t i = 0; i < m.n_shards; i++) {
        FUZZ_ASSERT(!strchr(m.shards[i].file, '/'));
        FUZZ_ASSERT(!__builtin_add_overflow(n_tokens, m.shards[i].n_tokens, &n_tokens));
    }
    pn_token_manifest_free(&m);
    return 0;
}
