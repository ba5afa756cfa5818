/* The page: reads what several sections need, then lets each append its part. */
#include "report_internal.h"

#include <string.h>

#include "files.h"

/* Gives every block its colour before anything is drawn, so that the legend is whole. */
static void read_blocks(pn_page *r) {
    static const char *const lists[] = { "table", "history" };
    pn_page_path p = r->winner;
    for (int l = 0; l < r->winner.n; l++) pn_page_block(r, r->winner.name[l]);
    for (int l = 0; l < r->base.n; l++) pn_page_block(r, r->base.name[l]);
    for (int k = 0; k < 2; k++) {
        const json_t *list = json_object_get(r->root, lists[k]);
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (!pn_page_path_read(json_array_get(list, i), &p)) continue;
            for (int l = 0; l < p.n; l++) pn_page_block(r, p.name[l]);
        }
    }
}

static void search_sections(pn_page *r) {
    pn_page_stack(r);
    pn_page_table(r);
    pn_page_distances(r);
    pn_page_cache(r);
    pn_page_speed(r);
    pn_page_importance(r);
    pn_page_history(r);
    pn_page_pareto(r);
    pn_page_selectors(r);
    pn_page_gates(r);
    pn_page_later_stage(r, "block", "Block");
    pn_page_later_stage(r, "shape", "Shape");
    pn_page_local_errors(r);
    pn_page_curve(r, "supernet_curve", "supernet", "Training the super-network");
    pn_page_curve(r, "distill_curve", "distillation", "Distilling the chosen hybrid");
}

static void training_sections(pn_page *r) {
    pn_page_training_heldout(r);
    pn_page_training_curves(r);
}

static void page(pn_page *r) {
    const bool training = pn_page_is_training(r->root);
    const char *model = pn_page_string(r->root, "model");
    pn_buf_text(r->out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n"
                        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"
                        "<meta name=\"color-scheme\" content=\"light dark\" />\n");
    pn_html(r->out, "<title>postnas %s%s%s</title>\n<style>\n", training ? "finetune" : "search", model ? ": " : "",
            model ? model : "");
    pn_buf_text(r->out, pn_page_style);
    pn_buf_text(r->out, "</style>\n</head>\n<body>\n<main>\n");
    (training ? pn_page_training_summary : pn_page_summary)(r);
    pn_buf sections = { 0 }, contents = { 0 }, *whole = r->out;
    r->out = &sections;
    r->contents = &contents;
    (training ? training_sections : search_sections)(r);
    pn_page_configuration(r);
    r->out = whole;
    pn_buf_text(whole, "<nav aria-label=\"Sections\"><ul>\n");
    pn_buf_append(whole, contents.data, contents.n_bytes);
    pn_buf_text(whole, "</ul></nav>\n");
    pn_buf_append(whole, sections.data, sections.n_bytes);
    whole->failed |= sections.failed || contents.failed;
    pn_buf_free(&sections);
    pn_buf_free(&contents);
    pn_buf_text(r->out, "</main>\n</body>\n</html>\n");
}

pn_status pn_page_render(const json_t *result, const json_t *speed, pn_buf *out) {
    PN_CHECK(json_is_object(result), PN_FORMAT, "report: the result is not a JSON object; give a search's result.json");
    PN_CHECK(!speed || json_is_object(speed), PN_FORMAT,
             "report: the speeds are not a JSON object; give a search's speed.json, or none");
    pn_page r = { .root = result, .speed = speed, .out = out };
    pn_page_path_read(result, &r.winner);
    pn_page_objective_read(result, &r.objective);
    r.teacher_row = pn_page_row(&r, "teacher", false);
    r.winner_row = pn_page_row(&r, "PostNAS", true);
    if (!r.winner_row) r.winner_row = pn_page_row(&r, "PostNAS", false);
    if (r.winner_row) /* a fair rival was trained the same way */
        r.uniform_row = pn_page_row(&r, "uniform", json_is_true(json_object_get(r.winner_row, "distilled")));
    pn_page_path_read(r.teacher_row, &r.base);
    read_blocks(&r);
    pn_page_paths_read(&r);
    page(&r);
    pn_page_paths_free(&r);
    PN_TRY(pn_buf_status(out));
    return PN_OK;
}

pn_status pn_report_write(const json_t *result, const json_t *speed, const char *html_path) {
    pn_buf out = { 0 };
    pn_status s;
    PN_TRY_GOTO(s, pn_page_render(result, speed, &out), done);
    PN_TRY_GOTO(s, pn_file_write(html_path, out.data, out.n_bytes), done);
done:
    pn_buf_free(&out);
    return s;
}
