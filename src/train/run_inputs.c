#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "run_dir.h"

enum { FILE_LIMIT = 1 << 14 };

static const char *hash_text(const pn_run_input *in, char *buffer, size_t n) {
    snprintf(buffer, n, "%016" PRIx64, in->hash);
    return buffer;
}

static pn_status inputs_file(const pn_run_dir *run, char *file) {
    char state[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(run, "state", state));
    PN_TRY(pn_path_join(file, state, "inputs.json"));
    return PN_OK;
}

static pn_status compare(const pn_run_dir *run, const char *file, const json_t *root, const pn_run_input *in, int n) {
    char now[32];
    for (int i = 0; i < n; i++) {
        const char *was;
        PN_TRY(pn_json_get_str(root, file, in[i].key, &was));
        PN_CHECK(!strcmp(was, hash_text(&in[i], now, sizeof now)), PN_USAGE,
                 "%s: this run was begun with another %s than %s has now; restore it, or choose another output",
                 run->path, in[i].what, in[i].where);
    }
    return PN_OK;
}

pn_status pn_run_inputs_check(const pn_run_dir *run, const pn_run_input *in, int n) {
    char file[PN_PATH_MAX];
    json_t *root;
    PN_TRY(inputs_file(run, file));
    if (!n || !pn_file_exists(file)) return PN_OK;
    PN_TRY(pn_json_load(file, FILE_LIMIT, &root));
    pn_status s = compare(run, file, root, in, n);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_run_inputs_keep(const pn_run_dir *run, const pn_run_input *in, int n) {
    char file[PN_PATH_MAX], hash[32];
    PN_TRY(inputs_file(run, file));
    if (!n || pn_file_exists(file)) return PN_OK;
    char state[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(run, "state", state));
    PN_TRY(pn_make_directories(state));
    json_t *root = json_object();
    for (int i = 0; i < n; i++) json_object_set_new(root, in[i].key, json_string(hash_text(&in[i], hash, sizeof hash)));
    pn_status s = pn_json_write(file, root);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}
