/* What fla's model types are: shared by the parts that read and write their config.json. */
#ifndef PN_IO_FLA_INTERNAL_H
#define PN_IO_FLA_INTERNAL_H

#include "fla.h"

/* A key that can have one value only: fla has no counterpart for others in its layers, or we have none. */
typedef struct pn_fla_rule {
    const char *key;           /* NULL ends a list */
    const char *value, *alias; /* as JSON; alias: means the same, NULL: nothing does */
    const char *why;           /* a whole sentence's second half: "gla's gate_low_rank_dim is 32; WHY" */
} pn_fla_rule;

struct pn_fla_kind {
    const char *model_type, *architecture;
    const pn_block_type *block; /* in layers without attention; its options are fla's keys of the same names */
    int64_t hidden_ratio;       /* where a config says nothing of the MLP's width */
    bool has_head_dim;          /* expand_v multiplies head_dim, which must be there; else the hidden size */
    pn_fla_rule rule[6];
};

/* The rule for a key, of this model type or of all; NULL: any value will do. */
const pn_fla_rule *pn_fla_rule_of(const pn_fla_kind *kind, const char *key);
/* Calls f for every rule. */
pn_status pn_fla_each_rule(const pn_fla_kind *kind, pn_status (*f)(void *ctx, const pn_fla_rule *r), void *ctx);
/* The rule's value, or NULL: out of memory. The caller owns it. */
json_t *pn_fla_value(const char *text);
/* Whether v is what the rule asks for. */
bool pn_fla_obeys(const pn_fla_rule *r, const json_t *v);

#endif
