/* The tables of the later stages, for people. */
#include "run_phases.h"

#include <string.h>

static int text_width(const pn_variants *v) {
    int width = 9;
    for (int i = 0; i < v->n; i++)
        if ((int)strlen(v->item[i].text) > width) width = (int)strlen(v->item[i].text);
    return width;
}

static void print_header(const pn_run *r, int width) {
    const pn_int_list *context = &r->config.latency.context;
    fprintf(r->out, "  %-*s  %10s", width, "candidate", "objective");
    for (int t = 0; t < r->config.n_tasks; t++) pn_task_print(&r->config.tasks[t], NULL, r->out);
    fprintf(r->out, "  %10s  %10s  %10s", "parameters", "kflop/tok", "state KiB");
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < context->n; i++) {
            char text[48];
            snprintf(text, sizeof text, "%s@%lld", pass ? "prefill" : "decode", (long long)context->item[i]);
            fprintf(r->out, "  %14s", text);
        }
    }
    fputc('\n', r->out);
}

static void print_variant(const pn_run *r, const pn_variants *v, int i, int width) {
    const pn_variant *x = &v->item[i];
    const pn_history *h = &r->history[x->row];
    fprintf(r->out, "%c %-*s  %10.4f", i == v->chosen ? '*' : ' ', width, x->text, h->objective);
    for (int t = 0; t < r->config.n_tasks; t++) pn_task_print(&r->config.tasks[t], &h->metrics[t], r->out);
    fprintf(r->out, "  %10.0f  %10.1f  %10.2f", x->cost[PN_VARIANT_PARAMETERS], x->cost[PN_VARIANT_FLOPS] / 1e3,
            x->cost[PN_VARIANT_STATE] / 1024);
    for (int64_t c = 0; c < r->config.latency.context.n; c++) fprintf(r->out, "  %14.0f", x->decode[c]);
    for (int64_t c = 0; c < r->config.latency.context.n; c++) fprintf(r->out, "  %14.0f", x->prefill[c]);
    fprintf(r->out, "%s\n", x->front ? "  front" : "");
}

void pn_run_print_variants(const pn_run *r) {
    for (int k = 0; k < PN_VARIANT_STAGES; k++) {
        const pn_variants *v = &r->variants[k];
        if (!v->n) continue;
        int width = text_width(v);
        fprintf(r->out,
                "stage %s, by %s, %s is better; tokens/s of one layer's block; * chosen, front: none is better "
                "and faster\n",
                pn_variant_stage_names[k], v->config->objective.text, v->config->objective.ascending ? "more" : "less");
        print_header(r, width);
        for (int i = 0; i < v->n; i++) print_variant(r, v, i, width);
        fputc('\n', r->out);
    }
}
