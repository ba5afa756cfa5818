#include "supernet.h"

#include <stdlib.h>

#include <xxhash.h>

#include "files.h"
#include "gated.h"
#include "local.h"
#include "plan.h"
#include "start.h"

typedef struct sampler {
    const pn_model *m;
    uint64_t seed;
    pn_path path; /* of the present step */
} sampler;

static pn_status sample(void *ctx, pn_tape *t, int64_t step, pn_distill *pass) {
    (void)t;
    sampler *s = ctx;
    s->path = pn_supernet_sample(s->m, s->seed, step);
    pass->path = &s->path;
    return PN_OK;
}

static pn_status train_sampled(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                               const char *state_dir, pn_supernet_result *out) {
    pn_path teacher = pn_model_own_path(m);
    sampler s = { .m = m, .seed = job->seed };
    uint64_t weights;
    PN_TRY(pn_params_hash(m->params, &weights));
    const uint64_t whole[] = { weights + pn_supernet_start_hash(job), job->seed };
    const pn_train_job train = { .name = "super-network, sampled paths",
                                 .options = &phase->train,
                                 .mixture = job->mixture,
                                 .student = m,
                                 .teacher = m,
                                 .teacher_path = &teacher,
                                 .before = sample,
                                 .ctx = &s,
                                 .identity = XXH3_64bits(whole, sizeof whole),
                                 .state_dir = state_dir,
                                 .stop_after = job->stop_after };
    if (phase == job->config->phase) PN_TRY(pn_supernet_start(m, phase, job, NULL));
    PN_TRY(pn_train_run(&train, &out->curve));
    return PN_OK;
}

static pn_status check_blocks(const pn_model *m, const pn_supernet_config *config) {
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 0; c < m->layer[l].n_candidates; c++) {
            char where[64];
            snprintf(where, sizeof where, "supernet: layer %d", l);
            PN_TRY(pn_supernet_blocks_check(config, &m->layer[l].candidate[c]->spec, 1, where));
        }
    return PN_OK;
}

pn_status pn_supernet_train(pn_model *m, const pn_supernet_job *job, pn_supernet_result *out) {
    PN_TRY(check_blocks(m, job->config));
    PN_TRY(pn_supernet_fits(m, job));
    for (int i = 0; i < job->config->n_phases; i++) {
        const pn_supernet_phase *phase = &job->config->phase[i];
        char then[PN_PATH_MAX];
        const char *dir = job->state_dir;
        if (i && dir) {
            PN_TRY(pn_path_join(then, dir, "then"));
            dir = then;
        }
        switch ((pn_supernet_mode)phase->mode) {
        case PN_SUPERNET_LOCAL: PN_TRY(pn_supernet_train_local(m, phase, job, dir, out)); break;
        case PN_SUPERNET_SAMPLED: PN_TRY(train_sampled(m, phase, job, dir, out)); break;
        case PN_SUPERNET_GATED: PN_TRY(pn_supernet_train_gated(m, phase, job, dir, out)); break;
        }
    }
    return PN_OK;
}

void pn_supernet_result_free(pn_supernet_result *r) {
    free(r->error);
    pn_curve_free(&r->curve);
    pn_gate_curve_free(&r->gate_curve);
    *r = (pn_supernet_result){ 0 };
}
