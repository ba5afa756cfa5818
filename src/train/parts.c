#include "parts.h"

void pn_parts_open(pn_parts *p, const pn_batch *whole, int64_t part_tokens, int ranks, double weight) {
    PN_ASSERT(part_tokens > 0 && whole->n_tokens % part_tokens == 0);
    p->whole = whole;
    p->tokens = part_tokens;
    p->n = (int)(whole->n_tokens / part_tokens);
    p->ranks = ranks;
    p->alone = p->n == 1 && ranks == 1;
    p->weight = ranks > 1 ? weight : p->n > 1 ? pn_batch_weight(whole) : 0;
}

pn_status pn_parts_take(pn_parts *p, int i, const pn_loss_weights *weights, bool *loses) {
    *loses = true;
    p->weights = *weights;
    if (p->alone) return PN_OK;
    PN_TRY(pn_batch_part(p->whole, i * p->tokens, p->tokens, &p->batch));
    const double alike = 1.0 / ((double)p->n * p->ranks);
    p->share.feature = alike;
    p->share.term = p->weight > 0 ? pn_batch_weight(&p->batch) / p->weight : alike;
    p->weights.ce *= p->share.term;
    p->weights.kl *= p->share.term;
    p->weights.feature *= p->share.feature;
    *loses = p->weights.ce > 0 || p->weights.kl > 0 || p->weights.feature > 0;
    return PN_OK;
}

const pn_batch *pn_parts_batch(const pn_parts *p) {
    return p->alone ? p->whole : &p->batch;
}

void pn_parts_free(pn_parts *p) {
    pn_batch_free(&p->batch);
    *p = (pn_parts){ 0 };
}
