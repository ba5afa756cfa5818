/* tokenizer.json: what is accepted encodes any text, and gives back ids of its own vocabulary that decode. */
#include "tokenizer.h"

#include "fuzz.h"

static void try_text(const pn_tokenizer *t, const char *text, size_t n) {
    pn_ids ids = { 0 };
    char *back;
    size_t n_back;
    pn_status s = pn_tokenizer_encode(t, text, n, true, &ids);
    if (s) {
        fuzz_refused(s);
        FUZZ_ASSERT(ids.n == 0);
    }
    for (int64_t i = 0; i < ids.n; i++) FUZZ_ASSERT(ids.ids[i] >= 0 && ids.ids[i] < pn_tokenizer_vocab(t));
    FUZZ_ASSERT(pn_tokenizer_decode(t, ids.ids, ids.n, false, &back, &n_back) == PN_OK);
    free(back);
    pn_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_tokenizer *t;
    static const char plain[] = "Hello  12 abc'll \xe4\xb8\xad\n\t<|endoftext|> e\xcc\x81 ab\xc2\xb2";
    pn_status s = pn_tokenizer_parse("tokenizer.json", (const char *)data, n_bytes, &t);
    if (s) return fuzz_refused(s);
    char *text;
    size_t n;
    FUZZ_ASSERT(pn_text_repair((const char *)data, n_bytes < 256 ? n_bytes : 256, &text, &n) == PN_OK);
    try_text(t, plain, sizeof plain - 1);
    try_text(t, text, n);
    free(text);
    pn_tokenizer_destroy(&t);
    return 0;
}
