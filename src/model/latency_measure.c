#include "latency_measure.h"

#include <stdlib.h>

#include "clock.h"
#include "device.h"

/* A step that is timed. */
typedef struct frame {
    const pn_latency_subject *subject;
    const pn_latency_setting *setting;
    pn_latency_step step;
    int64_t *offset; /* of step.docs; owned */
    int64_t runs;
    pn_decoder *decoder[PN_LATENCY_MOST_COPIES]; /* of each copy, for one token each; else NULL */
} frame;

int64_t pn_latency_sequences(const pn_latency_setting *setting) {
    return setting->pass == PN_LATENCY_DECODE ? setting->batch : setting->prompts > 1 ? setting->prompts : 1;
}

static void frame_close(frame *f) {
    for (int i = 0; i < f->subject->copies; i++) pn_decoder_destroy(&f->decoder[i]);
    if (f->step.tape) pn_tape_reset(f->step.tape);
    pn_tensor_release(&f->step.ids);
    pn_tensor_release(&f->step.x);
    pn_tape_destroy(&f->step.tape);
    free(f->offset);
}

/* ids and x of a step. */
static pn_status made_up(const pn_latency_subject *s, const int64_t shape[2], pn_latency_step *step) {
    const int64_t tokens = shape[0], n = shape[0] * shape[1];
    pn_pool *pool = pn_tape_pool(step->tape);
    PN_TRY(pn_tensor_create(pool, PN_I32, 1, shape, &step->ids));
    PN_TRY(pn_tensor_create(pool, pn_tape_dtype(step->tape), 2, shape, &step->x));
    int32_t *ids = malloc((size_t)tokens * sizeof *ids + 1);
    float *x = malloc((size_t)n * sizeof *x + 1);
    pn_status status = ids && x ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i < tokens && !status; i++) ids[i] = (int32_t)(i * 7919 % s->vocab);
    for (int64_t i = 0; i < n && !status; i++) x[i] = (float)(i * 7919 % 2003) / 1001.0f - 1; /* variance 1/3, mean 0 */
    if (!status) status = pn_tensor_write(step->ids, ids, PN_I32);
    if (!status) status = pn_tensor_write(step->x, x, PN_F32);
    free(ids);
    free(x);
    return status;
}

/* n documents of `length` tokens. */
static pn_status frame_open(const pn_latency_subject *s, const pn_latency_setting *setting, int64_t n, int64_t length,
                            frame *f) {
    const int64_t shape[] = { n * length, s->hidden };
    *f = (frame){ .subject = s, .setting = setting, .offset = calloc((size_t)n + 1, sizeof *f->offset) };
    PN_CHECK(f->offset, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i <= n; i++) f->offset[i] = i * length;
    f->step.docs = (pn_docs){ .n = n, .offset = f->offset };
    PN_TRY(pn_params_tape(s->copy(s->ctx, 0).params, &f->step.tape));
    pn_tape_record(f->step.tape, false);
    PN_TRY(made_up(s, shape, &f->step));
    for (int i = 0; i < s->copies && setting->pass == PN_LATENCY_DECODE; i++) {
        const pn_latency_copy c = s->copy(s->ctx, i);
        const pn_decode_parts parts = {
            .params = c.params, .state = c.state, .n_states = c.n_states, .n = n, .offset = f->offset
        };
        PN_TRY(pn_decoder_create(f->step.tape, &parts, &f->decoder[i]));
    }
    return PN_OK;
}

static pn_status run_copy(void *ctx) {
    frame *f = ctx;
    pn_tape_reset(f->step.tape);
    PN_TRY(f->subject->run(f->subject->ctx, (int)(f->runs % f->subject->copies), &f->step));
    return PN_OK;
}

static pn_status run_frame(void *ctx) {
    frame *f = ctx;
    const pn_latency_subject *s = f->subject;
    const int copy = (int)(f->runs % s->copies);
    const pn_latency_copy c = s->copy(s->ctx, copy);
    for (int i = 0; i < c.n_states; i++) pn_state_assume_past(c.state[i], f->step.past);
    if (f->decoder[copy])
        PN_TRY(pn_decoder_step(f->decoder[copy], run_copy, f));
    else
        PN_TRY(run_copy(f));
    f->runs++;
    if (pn_tape_backend(f->step.tape) == PN_CUDA) PN_TRY(pn_device_sync());
    return PN_OK;
}

static pn_status time_frame(frame *f, pn_timing *out) {
    const int copies = f->subject->copies;
    const int64_t runs = f->setting->repeat * copies; /* as often through each as through a whole model's layers */
    const bool gpu = pn_tape_backend(f->step.tape) == PN_CUDA; /* its time is nobody's processor time */
    const pn_timing_rule rule = { .clock = gpu ? pn_seconds : pn_timing_clock(),
                                  .warm = gpu ? 2 * copies : copies, /* the second time may be recorded */
                                  .runs = runs < PN_TIMING_MOST_RUNS ? runs : PN_TIMING_MOST_RUNS,
                                  .seconds = f->setting->seconds };
    PN_TRY(pn_time_runs(&rule, run_frame, f, out));
    return PN_OK;
}

static pn_status measure_frame(const pn_latency_subject *s, const pn_latency_setting *setting, int64_t length,
                               int64_t past, bool body, bool head, pn_timing *out) {
    frame f;
    pn_status status = frame_open(s, setting, pn_latency_sequences(setting), length, &f);
    f.step.past = past;
    f.step.body = body;
    f.step.head = head;
    if (!status) status = time_frame(&f, out);
    frame_close(&f);
    return status;
}

/* ---- prefill ---- */

static int64_t next_measured(int64_t piece, int64_t last) {
    int64_t next = piece ? 2 * piece : 1;
    return next < last ? next : last;
}

int pn_latency_pieces(int64_t context, int64_t chunk, pn_latency_piece out[PN_LATENCY_PIECES]) {
    const int64_t whole = context / chunk, last = whole - 1;
    double before = 0; /* half of the pieces since the last that is measured: each half counts with its neighbour */
    int n = 0;
    for (int64_t piece = 0; piece < whole;) {
        int64_t next = piece < last ? next_measured(piece, last) : whole;
        double after = (double)(next - piece - 1) / 2;
        out[n++] = (pn_latency_piece){ piece * chunk, chunk, 1 + before + after };
        before = after;
        piece = next;
    }
    if (context % chunk) out[n++] = (pn_latency_piece){ whole * chunk, context % chunk, 1 };
    return n;
}

static void add(double times, const pn_timing *x, pn_timing *sum) {
    sum->median += times * x->median;
    sum->least += times * x->least;
    sum->most += times * x->most;
    if (!sum->runs || x->runs < sum->runs) sum->runs = x->runs;
}

static pn_status prefill(const pn_latency_subject *s, const pn_latency_setting *setting, pn_timing *out) {
    pn_latency_piece piece[PN_LATENCY_PIECES];
    pn_timing x;
    int n = pn_latency_pieces(setting->context, setting->chunk, piece);
    *out = (pn_timing){ 0 };
    for (int i = 0; i < n; i++) {
        PN_TRY(measure_frame(s, setting, piece[i].tokens, piece[i].past, true, false, &x));
        add(piece[i].weight, &x, out);
    }
    if (!s->has_head) return PN_OK;
    PN_TRY(measure_frame(s, setting, 1, setting->context, false, true, &x));
    add(1, &x, out);
    return PN_OK;
}

pn_status pn_latency_measure(const pn_latency_subject *s, const pn_latency_setting *setting, pn_timing *out) {
    PN_ASSERT(setting->batch >= 1 && setting->context >= 1 && setting->chunk >= 1 && s->copies >= 1);
    if (setting->pass == PN_LATENCY_PREFILL)
        PN_TRY(prefill(s, setting, out));
    else
        PN_TRY(measure_frame(s, setting, 1, setting->context - 1, true, true, out));
    return PN_OK;
}
