#include <string.h>

#include "args.h"
#include "files.h"
#include "json.h"
#include "report.h"

enum { RESULT_LIMIT = 1 << 28, SPEED_LIMIT = 1 << 24 };

/* The speeds of NAME-result.json are in NAME-speed.json; *out stays NULL where that is not there. */
static pn_status load_speed(const char *result, json_t **out) {
    static const char ending[] = "result.json";
    char file[PN_PATH_MAX];
    size_t n = strlen(result), head = n - (sizeof ending - 1);
    if (n < sizeof ending - 1 || strcmp(result + head, ending)) return PN_OK;
    int written = snprintf(file, sizeof file, "%.*sspeed.json", (int)head, result);
    if (written >= (int)sizeof file || !pn_file_exists(file)) return PN_OK;
    PN_TRY(pn_json_load(file, SPEED_LIMIT, out));
    PN_CHECK(json_is_object(*out), PN_FORMAT, "%s: not a JSON object; put a search's speed.json there, or remove it",
             file);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    char result[PN_PATH_MAX], page[PN_PATH_MAX];
    const char *from = args->operand[0], *to = args->n_operands > 1 ? args->operand[1] : page;
    bool is_run = pn_is_directory(from);
    PN_CHECK(is_run || to != page, PN_USAGE, "postnas report: %s is no run; say which page to write: %s PAGE.html",
             from, from);
    if (is_run) {
        PN_TRY(pn_path_join(result, from, "result.json"));
        PN_TRY(pn_path_join(page, from, "report.html"));
        from = result;
    }
    json_t *root, *speed = NULL;
    PN_TRY(pn_json_load(from, RESULT_LIMIT, &root));
    pn_status s = load_speed(from, &speed);
    if (!s) s = pn_report_write(root, speed, to);
    json_decref(speed);
    json_decref(root);
    PN_TRY(s);
    printf("%s\n", to);
    return PN_OK;
}

const pn_command pn_cmd_report = {
    .name = "report",
    .summary = "make the report.html of a search or of finetune again from its result.json",
    .usage = "RUN|RESULT.json [PAGE.html]",
    .help =
        "Writes the page that a search leaves in its run: scores, the chosen stack, importance of every layer, the\n"
        "paths that were measured, the blocks and shapes of the later stages, curves. One file, readable without a\n"
        "network; made from result.json, and from speed.json beside it (NAME-speed.json beside NAME-result.json) for\n"
        "what was timed.\n"
        "\n"
        "    postnas report runs/quickstart\n"
        "    postnas report experiments/01-quickstart-base/quickstart-result.json /tmp/quickstart.html\n",
    .reads = "a run, or the result.json of one, and speed.json beside it when it is there\n",
    .writes = "the page: report.html in the run, or PAGE.html\n",
    .see = "postnas search --help    experiments/01-quickstart-base holds a result.json and its page\n",
    .min_operands = 1,
    .max_operands = 2,
    .run = run,
};
