#include "supernet.h"

#include <xxhash.h>

#include "local.h"

typedef struct sampler {
    const pn_model *m;
    uint64_t seed;
} sampler;

static pn_path sample(void *ctx, int64_t step) {
    const sampler *s = ctx;
    return pn_supernet_sample(s->m, s->seed, step);
}

pn_status pn_supernet_train(pn_model *m, const pn_supernet_options *options, const pn_train_options *train,
                            pn_mixture *mixture, uint64_t seed, const char *state_dir, pn_local_error *errors,
                            int *n_errors, pn_curve *curve) {
    *n_errors = 0;
    if (options->mode == PN_SUPERNET_LOCAL) {
        PN_TRY(pn_supernet_train_local(m, options, train, mixture, state_dir, errors, n_errors));
        return PN_OK;
    }
    pn_path teacher = pn_model_own_path(m);
    sampler s = { m, seed };
    const uint64_t whole[] = { pn_params_hash(m->params), seed };
    const pn_train_job job = { .name = "super-network, sampled paths",
                               .options = train,
                               .mixture = mixture,
                               .student = m,
                               .pick_path = sample,
                               .pick_ctx = &s,
                               .teacher = m,
                               .teacher_path = &teacher,
                               .identity = XXH3_64bits(whole, sizeof whole),
                               .state_dir = state_dir,
                               .finished = options->finished };
    PN_TRY(pn_train_run(&job, curve));
    return PN_OK;
}
