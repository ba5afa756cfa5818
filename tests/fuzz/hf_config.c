/* config.json: what is accepted has passed the model's own check and can be written as a model type that holds it. */
#include "fuzz.h"
#include "hf_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_model_config c;
    pn_status s = pn_hf_config_parse("config.json", (const char *)data, n_bytes, &c);
    if (s) return fuzz_refused(s);
    FUZZ_ASSERT(pn_model_config_check(&c) == PN_OK);
    FUZZ_ASSERT(pn_hf_model_type(pn_hf_kind_of(&c, PN_HF_AUTO)));
    return 0;
}
