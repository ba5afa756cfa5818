/* GGUF files: the container, the tensors of every type, and the config, weights and tokenizer that their keys name. */
#include "gguf_model.h"
#include "tensors.h"

static pn_status read_tensor(const void *file, const pn_tensor_info *info, pn_tensor *dst) {
    return pn_gguf_read_info(file, info, dst);
}

static void try_tokenizer(const pn_gguf *f) {
    pn_tokenizer *t;
    pn_ids ids = { 0 };
    pn_status s = pn_gguf_tokenizer(f, &t);
    if (s) {
        fuzz_refused(s);
        return;
    }
    static const char text[] = "Hello  12\n\xc3\xa9";
    if ((s = pn_tokenizer_encode(t, text, sizeof text - 1, true, &ids))) fuzz_refused(s);
    pn_ids_free(&ids);
    pn_tokenizer_destroy(&t);
}

static void try_model(const pn_gguf *f) {
    pn_model_config c;
    pn_weights *w;
    pn_status s = pn_gguf_config(f, &c);
    if (!s) s = pn_gguf_weights(f, &c, &w);
    if (s) {
        fuzz_refused(s);
        return;
    }
    for (int64_t i = 0; i < pn_weights_count(w); i++) {
        const pn_tensor_info *info = pn_weights_info(w, i);
        pn_tensor *x;
        if (info->rank > PN_MAX_RANK || info->n_elems > 1 << 16) continue;
        if (!(s = pn_tensor_create(fuzz_pool(), PN_F32, info->rank, info->shape, &x))) {
            s = pn_weights_read(w, info->name, x);
            pn_tensor_release(&x);
        }
        if (s) fuzz_refused(s);
    }
    pn_weights_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_gguf *f;
    pn_status s = pn_gguf_parse("input.gguf", data, n_bytes, &f);
    if (s) return fuzz_refused(s);
    for (int64_t i = 0; i < pn_gguf_count(f); i++) {
        const pn_tensor_info *info = pn_gguf_info(f, i);
        FUZZ_ASSERT(pn_gguf_find(f, info->name) == info);
        fuzz_read_tensor(f, info, data, n_bytes, read_tensor);
    }
    try_model(f);
    try_tokenizer(f);
    pn_gguf_close(&f);
    return 0;
}
