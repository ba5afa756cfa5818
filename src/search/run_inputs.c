/* What a run was begun with, state/inputs.json: a run that goes on must still find it. The configuration only says
 * where the base, its tokenizer and the data are, not that they are the same. */
#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "run_phases.h"

enum { FILE_LIMIT = 1 << 12, INPUTS = 3 };

typedef struct input {
    const char *key, *what;
    char hash[32];
} input;

static void look(const pn_run *r, input *in) {
    const uint64_t hash[INPUTS] = { r->base_hash, pn_tokenizer_hash(r->tokenizer), pn_mixture_hash(r->mixture) };
    static const char *const keys[INPUTS] = { "base", "tokenizer", "data" };
    static const char *const whats[INPUTS] = { "base model", "tokenizer", "training data" };
    for (int i = 0; i < INPUTS; i++) {
        in[i] = (input){ .key = keys[i], .what = whats[i] };
        snprintf(in[i].hash, sizeof in[i].hash, "%016" PRIx64, hash[i]);
    }
}

static pn_status compare(const pn_run *r, const char *file, const json_t *root, const input *in) {
    for (int i = 0; i < INPUTS; i++) {
        const char *was;
        PN_TRY(pn_json_get_str(root, file, in[i].key, &was));
        PN_CHECK(!strcmp(was, in[i].hash), PN_USAGE,
                 "%s: this run was begun with another %s than %s has now; restore it, or choose another output",
                 r->config.top.output, in[i].what, i == 2 ? "the mixture" : r->config.top.model);
    }
    return PN_OK;
}

static pn_status inputs_file(const pn_run *r, char *file) {
    char state[PN_PATH_MAX];
    PN_TRY(pn_path_join(state, r->config.top.output, "state"));
    PN_TRY(pn_path_join(file, state, "inputs.json"));
    return PN_OK;
}

pn_status pn_run_check_inputs(const pn_run *r) {
    char file[PN_PATH_MAX];
    input in[INPUTS];
    json_t *root;
    PN_TRY(inputs_file(r, file));
    if (!pn_file_exists(file)) return PN_OK;
    look(r, in);
    PN_TRY(pn_json_load(file, FILE_LIMIT, &root));
    pn_status s = compare(r, file, root, in);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_run_keep_inputs(const pn_run *r) {
    char file[PN_PATH_MAX];
    input in[INPUTS];
    PN_TRY(pn_run_dir_file(&r->dir, "state", file));
    PN_TRY(pn_make_directories(file));
    PN_TRY(inputs_file(r, file));
    if (pn_file_exists(file)) return PN_OK;
    look(r, in);
    json_t *root = json_object();
    for (int i = 0; i < INPUTS; i++) json_object_set_new(root, in[i].key, json_string(in[i].hash));
    pn_status s = pn_json_write(file, root);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}
