/* Safetensors files: whatever opens, every tensor can be found by name and read. */
#include "safetensors.h"

#include "tensors.h"

static pn_status read_tensor(const void *file, const pn_tensor_info *info, pn_tensor *dst) {
    return pn_safetensors_read_info(file, info, dst);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_safetensors *f;
    pn_status s = pn_safetensors_parse("input.safetensors", data, n_bytes, &f);
    if (s) return fuzz_refused(s);
    size_t total = 0;
    for (int64_t i = 0; i < pn_safetensors_count(f); i++) {
        const pn_tensor_info *info = pn_safetensors_info(f, i);
        FUZZ_ASSERT(pn_safetensors_find(f, info->name) == info);
        total += info->n_bytes;
        fuzz_read_tensor(f, info, data, n_bytes, read_tensor);
    }
    FUZZ_ASSERT(total <= n_bytes); /* they tile the data */
    pn_safetensors_metadata(f, "format");
    pn_safetensors_close(&f);
    return 0;
}
