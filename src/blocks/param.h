/* Named weights. A list owns a reference to each; two models that share a frozen weight hold the same pn_param, so a
 * student costs only what differs from its teacher.
 *
 * A list is on a backend and computes in a type, and so does everything that is done with its model: tapes are made for
 * the list (pn_params_tape). A model is made, read and initialised on the host, then moved to the GPU (pn_params_move),
 * where matrices have the type that is computed in, and weights that keep F32 in files, or are no matrices, are F32. */
#ifndef PN_BLOCKS_PARAM_H
#define PN_BLOCKS_PARAM_H

#include "init.h"
#include "tape.h"

enum { PN_NAME_MAX = 160 };

typedef struct pn_param {
    char name[PN_NAME_MAX];
    pn_tensor *value; /* owned */
    pn_init init;
    bool decay;    /* weight decay applies (matrices only) */
    bool keep_f32; /* wide (op.h), as all that are no matrices, and F32 in files (blocks.md 1.2) */
    int refs;
} pn_param;

typedef struct pn_param_spec pn_param_spec;

/* Asked before memory is taken for a weight; a failure ends what declares it. */
typedef struct pn_param_guard {
    pn_status (*admit)(const void *context, const pn_param_spec *spec);
    const void *context;
} pn_param_guard;

typedef struct pn_params {
    pn_param **item;
    int n, cap;
    pn_pool *pool;          /* where new weights are made */
    pn_backend backend;     /* PN_CPU or PN_REF at first; PN_PLAN of a plan */
    pn_backend planned_for; /* of a plan: the backend whose scratch it counts; PN_PLAN: none */
    pn_dtype dtype;         /* the compute type of what uses them (op.h): F32, F64 for PN_REF, or BF16 for PN_CUDA */
    /* Where declare looks for a weight of the asked name, shape and dtype before it makes one; NULL: nowhere. Borrowed:
     * set it while a model is built. */
    const struct pn_params *lender;
    const pn_param_guard *guard; /* NULL: every weight may be made. Borrowed: set it while a model is built. */
} pn_params;

pn_status pn_params_create(pn_dtype dtype, pn_params **out);
/* Weights without memory behind them: shapes to count and to plan with. */
pn_status pn_params_plan(pn_dtype dtype, pn_params **out);
/* Empty, with the backend and type of another list. */
pn_status pn_params_create_like(const pn_params *like, pn_params **out);
void pn_params_destroy(pn_params **p);

/* Moves every value to the backend, PN_CPU or PN_CUDA, and to the types that computing in `dtype` asks for; tensors
 * stay the same (pn_tensor_move), and later weights are made there. What another list shares and has moved stays. BF16
 * is for PN_CUDA only. PN_UNSUPPORTED where there is no GPU. */
pn_status pn_params_move(pn_params *p, pn_backend backend, pn_dtype dtype);
/* A hash that also says where training was done: on the GPU the same job gives other bits. On the CPU it is `hash`. */
uint64_t pn_params_fingerprint(const pn_params *p, uint64_t hash);
/* A tape that runs models of these weights. */
pn_status pn_params_tape(const pn_params *p, pn_tape **out);
/* A plan of what such a tape does. */
pn_status pn_params_tape_plan(const pn_params *p, pn_tape **out);

pn_param *pn_params_find(const pn_params *p, const char *name); /* NULL if absent; borrowed */

struct pn_param_spec {
    const char *name;
    int rank;
    int64_t shape[PN_MAX_RANK];
    pn_init init;
    bool decay, keep_f32;
};
/* Returns the weight of that name, sharing the lender's or making it (zeros) when absent. PN_FORMAT when one exists
 * with another shape. */
pn_status pn_params_declare(pn_params *p, const pn_param_spec *spec, pn_param **out);
/* Puts a weight of another list into this one under its own name: shared, not copied. */
pn_status pn_params_share(pn_params *p, pn_param *from);
/* Every weight below to_prefix gets the value of the weight of that name below from_prefix, which must be there with
 * the same shape; others there are left. The lists may be one. */
pn_status pn_params_copy(const pn_params *from, const char *from_prefix, pn_params *to, const char *to_prefix);
/* Draws every value from the stream (seed, weight name): independent of the order of declaration and of threads. */
pn_status pn_params_init(pn_params *p, uint64_t seed);
/* Those declared since the list had n weights. */
pn_status pn_params_init_since(pn_params *p, int n, uint64_t seed);
pn_status pn_param_init(pn_param *p, uint64_t seed);
/* Sets wants_grad on every weight whose name matches the glob pattern ("*.mlp.*"); returns how many matched. */
int pn_params_train(pn_params *p, const char *pattern, bool train);
/* xxh3 over the names and values of every weight, whatever their order: equal weights of equal types, equal hash. */
pn_status pn_params_hash(const pn_params *p, uint64_t *out);
/* One weight's part in that, under its own name or another. */
pn_status pn_param_hash(const pn_param *p, uint64_t *out);
pn_status pn_param_hash_as(const pn_param *p, const char *name, uint64_t *out);
/* Whether a weight's name starts with the prefix ("model.layers.0.mlp."). */
bool pn_param_below(const char *name, const char *prefix);
/* Number of values in all weights; trainable ones only when `training`. */
int64_t pn_params_count(const pn_params *p, bool training);

#endif
