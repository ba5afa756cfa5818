/* A teacher in the loop, which shares what the student does not train, or the rows that it wrote. */
#include <stdlib.h>
#include <string.h>

#include "model_load.h"
#include "recipe.h"

/* Whether the values of `theirs`, on the host in F32, are those that x has where it computes. */
static pn_status same_values(const pn_tensor *x, const pn_tensor *theirs, bool *same) {
    const int64_t n = pn_tensor_elems(x);
    const size_t n_bytes = pn_tensor_bytes(x);
    char *a = malloc(2 * n_bytes + 1), *b = a + n_bytes;
    PN_CHECK(a, PN_MEMORY, "out of memory");
    pn_status s = pn_tensor_read(x, a, x->dtype);
    if (!s) pn_convert(b, x->dtype, pn_f32(theirs), PN_F32, n);
    *same = !s && !memcmp(a, b, n_bytes);
    free(a);
    return s;
}

static pn_status share(const pn_model *student, const pn_model *read, pn_params *shared) {
    for (int i = 0; i < student->params->n; i++) {
        pn_param *own = student->params->item[i];
        const pn_param *theirs = pn_params_find(read->params, own->name);
        bool same = false;
        if (!theirs || own->value->wants_grad || !pn_tensor_same_shape(own->value, theirs->value)) continue;
        PN_TRY(same_values(own->value, theirs->value, &same));
        if (same) PN_TRY(pn_params_share(shared, own));
    }
    return PN_OK;
}

pn_status pn_recipe_teacher(const char *path, const pn_model *student, pn_model **out) {
    pn_model *read = NULL;
    pn_params *shared = NULL;
    pn_status s;
    *out = NULL;
    PN_TRY_GOTO(s, pn_model_load(path, PN_F32, &read), done);
    PN_TRY_GOTO(s, pn_params_create_like(student->params, &shared), done);
    PN_TRY_GOTO(s, share(student, read, shared), done);
    PN_TRY_GOTO(s, pn_model_create(&read->config, student->params->dtype, shared, out), done);
    for (int i = 0; i < (*out)->params->n; i++) {
        const pn_param *p = (*out)->params->item[i];
        if (!pn_params_find(shared, p->name))
            PN_TRY_GOTO(s, pn_tensor_copy(p->value, pn_params_find(read->params, p->name)->value), done);
    }
done:
    if (s) pn_model_destroy(out);
    pn_params_destroy(&shared);
    pn_model_destroy(&read);
    return s;
}

pn_status pn_recipe_teacher_rows(const pn_recipe *r, int stage, const pn_tokenizer *tokenizer,
                                 const pn_mixture *mixture, int64_t vocab, pn_teacher_rows **out) {
    const pn_recipe_stage *s = &r->stage[stage];
    char where[64];
    *out = NULL;
    if (!s->teacher_logits) return PN_OK;
    const pn_teacher_info need = { .tokenizer_hash = pn_tokenizer_hash(tokenizer),
                                   .mixture_hash = pn_mixture_hash(mixture),
                                   .vocab = vocab,
                                   .sequence_length = pn_mixture_row_tokens(mixture),
                                   .temperature = s->train.loss.temperature };
    snprintf(where, sizeof where, "stages.%d.teacher_logits", stage);
    PN_TRY(pn_teacher_rows_open(s->teacher_logits, out));
    const pn_status fits =
        pn_teacher_rows_need(*out, &need, s->train.tokens / s->sequence_length, pn_config_where(r->config, where));
    if (fits) pn_teacher_rows_close(out);
    return fits;
}

pn_status pn_recipe_teacher_check(const pn_recipe_stage *stage, const pn_model *student, const pn_model *teacher,
                                  const char *where) {
    if (!teacher) return PN_OK;
    const pn_model_config *s = &student->config, *t = &teacher->config;
    PN_CHECK(t->vocab == s->vocab, PN_USAGE,
             "%s: the teacher has %lld words and the model %lld: kl needs the same ones", where, (long long)t->vocab,
             (long long)s->vocab);
    const bool alike = t->n_layers == s->n_layers && t->dims.hidden == s->dims.hidden;
    PN_CHECK(alike || pn_loss_most(&stage->train.loss).feature == 0, PN_USAGE,
             "%s: the teacher has %d layers of width %lld and the model %d of %lld: set feature: 0, which compares "
             "layer by layer",
             where, t->n_layers, (long long)t->dims.hidden, s->n_layers, (long long)s->dims.hidden);
    return PN_OK;
}
