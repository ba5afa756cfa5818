#include "supernet.h"

#include <xxhash.h>

#include "local.h"

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

pn_status pn_supernet_train(pn_model *m, const pn_supernet_options *options, const pn_train_options *train,
                            pn_mixture *mixture, uint64_t seed, const char *state_dir, pn_local_error *errors,
                            int *n_errors, pn_curve *curve) {
    *n_errors = 0;
    if (options->mode == PN_SUPERNET_LOCAL) {
        PN_TRY(pn_supernet_train_local(m, options, train, mixture, state_dir, errors, n_errors));
        return PN_OK;
    }
    pn_path teacher = pn_model_own_path(m);
    sampler s = { .m = m, .seed = seed };
    const uint64_t whole[] = { pn_params_hash(m->params), seed };
    const pn_train_job job = { .name = "super-network, sampled paths",
                               .options = train,
                               .mixture = mixture,
                               .student = m,
                               .teacher = m,
                               .teacher_path = &teacher,
                               .before = sample,
                               .ctx = &s,
                               .identity = XXH3_64bits(whole, sizeof whole),
                               .state_dir = state_dir };
    PN_TRY(pn_train_run(&job, curve));
    return PN_OK;
}
