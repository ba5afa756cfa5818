#include "telling.h"

#include <math.h>

#include "clock.h"
#include "log.h"
#include "monitor.h"

pn_status pn_telling_open(pn_telling *t, const pn_train_job *job, int64_t first, int64_t steps) {
    const int64_t batch = job->options->batch_tokens;
    *t = (pn_telling){ .job = job, .steps = steps, .shown_tokens = first * batch };
    PN_TRY(pn_meter_open(job, &t->meter));
    t->progress = pn_progress_begin(job->name, first * batch, steps * batch, "tokens");
    t->shown = pn_seconds();
    return PN_OK;
}

/* " (ce 2.31, kl 0.12)": where the loss has several parts. */
static const char *parts_text(const pn_loss_parts *p, char *buffer, size_t n) {
    const struct {
        const char *name;
        double value;
    } part[] = { { "ce", p->ce }, { "kl", p->kl }, { "feature", p->feature } };
    size_t len = 0;
    int all = 0;
    for (int i = 0; i < 3; i++) all += part[i].value != 0;
    buffer[0] = '\0';
    for (int i = 0, k = 0; i < 3 && all > 1 && len < n; i++) {
        if (part[i].value == 0) continue;
        const char *before = k ? ", " : " (";
        k++;
        len += (size_t)snprintf(buffer + len, n - len, "%s%s %.4g%s", before, part[i].name, part[i].value,
                                k == all ? ")" : "");
    }
    return buffer;
}

/* "  31 % of 989 TFLOP/s  56.0 GB" */
static const char *use_text(const pn_telling *t, char *buffer, size_t n) {
    const double mfu = pn_meter_mfu(&t->meter, t->progress.rate);
    size_t len = 0;
    buffer[0] = '\0';
    if (mfu > 0) len = (size_t)snprintf(buffer, n, "  MFU %.0f%% of %.3g TFLOP/s", 100 * mfu, t->meter.peak / 1e12);
    if (t->memory > 0 && len < n) snprintf(buffer + len, n - len, "  %.1f GB", t->memory / 1e9);
    return buffer;
}

static void show_point(pn_telling *t, const pn_curve_point *p) {
    const double now = pn_seconds(), rate = (double)(p->tokens - t->shown_tokens) / (now - t->shown);
    t->memory = pn_memory_used(t->job->student->params->backend);
    t->shown = now;
    t->shown_tokens = p->tokens;
    const pn_scalar scalars[] = { { "loss", p->loss.total },
                                  { "ce", p->loss.ce },
                                  { "kl", p->loss.kl },
                                  { "feature", p->loss.feature },
                                  { "learning_rate", p->learning_rate },
                                  { "gradient_norm", p->norm },
                                  { "tokens", (double)p->tokens },
                                  { "tokens_per_second", rate },
                                  { "memory_gb", t->memory / 1e9 },
                                  { "mfu", pn_meter_mfu(&t->meter, rate) },
                                  { "mfu_of_tflops", t->meter.peak / 1e12 } };
    const int all = sizeof scalars / sizeof *scalars;
    pn_monitor_point(t->job->name, p->step, scalars, t->meter.peak > 0 ? all : all - 2);
}

void pn_telling_step(pn_telling *t, const pn_curve_point *p, bool point) {
    char parts[96], use[64];
    t->smooth = t->smooth == 0 ? p->loss.total : 0.95 * t->smooth + 0.05 * p->loss.total;
    if (point) show_point(t, p);
    pn_progress_update(&t->progress, p->tokens, "loss %.4f%s  norm %.2g  step %lld/%lld%s", t->smooth,
                       parts_text(&p->loss, parts, sizeof parts), p->norm, (long long)p->step, (long long)t->steps,
                       use_text(t, use, sizeof use));
}

void pn_telling_heldout(pn_telling *t, const pn_curve_point *p) {
    char name[128], parts[96];
    const pn_scalar scalars[] = { { "loss", p->loss.total },
                                  { "ce", p->loss.ce },
                                  { "kl", p->loss.kl },
                                  { "feature", p->loss.feature },
                                  { "perplexity", exp(p->loss.ce) },
                                  { "tokens", (double)p->tokens } };
    snprintf(name, sizeof name, "%s, held out", t->job->name);
    pn_monitor_point(name, p->step, scalars, sizeof scalars / sizeof *scalars);
    pn_info("%s: step %lld: held-out loss %.4f%s, perplexity %.4g", t->job->name, (long long)p->step, p->loss.total,
            parts_text(&p->loss, parts, sizeof parts), exp(p->loss.ce));
}

void pn_telling_close(pn_telling *t) {
    pn_progress_end(&t->progress);
}
