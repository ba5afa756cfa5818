/* A YAML configuration of `postnas search`, and after a NUL byte the argument of a --set. What is accepted, resolved
 * and printed loads again. */
#include "fuzz.h"
#include "search_config.h"

/* As pn_config_print writes it; the caller frees it. */
static char *printed(const pn_config *c) {
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    FUZZ_ASSERT(out);
    pn_config_print(c, out);
    FUZZ_ASSERT(!fclose(out));
    return text;
}

static void check_print(const pn_config *c) {
    pn_config *again;
    char *text = printed(c);
    FUZZ_ASSERT(pn_config_parse("printed.yaml", text, &again) == PN_OK);
    pn_config_destroy(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    pn_config *c;
    char *text = strndup((const char *)data, n_bytes);
    FUZZ_ASSERT(text);
    pn_status s = pn_config_parse("input.yaml", text, &c);
    size_t n_yaml = strlen(text);
    free(text);
    if (s) return fuzz_refused(s);
    if (n_yaml < n_bytes) {
        char *assignment = strndup((const char *)data + n_yaml + 1, n_bytes - n_yaml - 1);
        FUZZ_ASSERT(assignment);
        s = pn_config_set(c, assignment);
        free(assignment);
        if (s) fuzz_refused(s);
    }
    check_print(c);
    s = pn_search_config_check(c);
    if (!s) s = pn_config_finish(c);
    if (s) fuzz_refused(s);
    check_print(c); /* with the defaults of what was read */
    pn_config_destroy(&c);
    return 0;
}
