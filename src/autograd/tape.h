/* An eager tape: running an op records it with what it declared to save; backward() replays the record in reverse.
 *
 * Ownership. The tape owns every tensor an op returns; the caller borrows it until the scope it was made in closes
 * (pn_scope_open/close) or the tape is reset. So model code is a list of calls with no releases:
 *
 *     pn_scope s = pn_scope_open(tape);
 *     PN_TRY(pn_rms_norm(tape, h, w, eps, &x));
 *     PN_TRY(pn_linear(tape, x, wq, bq, &q));
 *     ...
 *     pn_scope_close(tape, s, keep, n_keep);      (on failure: nothing to do, pn_tape_reset cleans up)
 *
 * Closing a scope gives back the memory of every value made in it, except `keep` (handed to the enclosing scope) and
 * what recorded ops declared to save. Values needed by backward stay until pn_tape_backward has passed them.
 *
 * A tape that is not recording (pn_tape_record(t, false): teacher, evaluation, decoding) runs the same ops and keeps
 * nothing. */
#ifndef PN_AUTOGRAD_TAPE_H
#define PN_AUTOGRAD_TAPE_H

#include "op.h"

/* Owns its pool, where gradients of leaves are made too: they may outlive it. Backend PN_PLAN gets a counting pool, and
 * gradients that it made go with the next reset: real leaves can be planned with and then trained. */
pn_status pn_tape_create(pn_backend backend, pn_tape **out);
/* The same in a compute type of choice: BF16 for PN_CUDA. */
pn_status pn_tape_create_typed(pn_backend backend, pn_dtype compute, pn_tape **out);
/* A plan of what a tape of that backend and type would do: its scratch is counted. pn_tape_create(PN_PLAN) plans for
 * the CPU. */
pn_status pn_tape_create_plan(pn_backend of, pn_dtype compute, pn_tape **out);
void pn_tape_destroy(pn_tape **t);
/* End of step: forgets all records and gives every value back to the pool. */
void pn_tape_reset(pn_tape *t);

pn_backend pn_tape_backend(const pn_tape *t);
pn_dtype pn_tape_dtype(const pn_tape *t);
pn_pool *pn_tape_pool(pn_tape *t);
/* Sets recording and returns what it was. A new tape records. */
bool pn_tape_record(pn_tape *t, bool recording);
bool pn_tape_recording(const pn_tape *t);
/* Whether what runs now has a backward: it is recorded, or run for the first time by pn_tape_recompute. */
bool pn_tape_differentiates(const pn_tape *t);
/* What is recorded from now on and costs at most `most` to make again (op.h) is not kept for backward, which makes it
 * again, bit for bit, when it comes to the first record that reads it. Returns what was set. PN_AGAIN_NEVER at first,
 * and after a reset. */
pn_again pn_tape_again(pn_tape *t, pn_again most);

/* Branches: what follows one needs nothing that the others since the last join make, and no scope that was opened
 * before them closes until they are joined. Recorded work (replay.h) runs them side by side; elsewhere they say
 * nothing. */
pn_status pn_tape_branch(pn_tape *t);
pn_status pn_tape_join(pn_tape *t);
/* For replay.c: whether branches are kept apart, each with scratch of its own. */
void pn_tape_side_by_side(pn_tape *t, bool on);

typedef struct pn_scope {
    int mark;
} pn_scope;
pn_scope pn_scope_open(pn_tape *t);
void pn_scope_close(pn_tape *t, pn_scope s, pn_tensor *const *keep, int n_keep);
/* Hands a tensor the caller owns (one reference) to the current scope. */
pn_status pn_tape_own(pn_tape *t, pn_tensor *x);
/* A tensor with undefined values, owned by the current scope. */
pn_status pn_tape_new(pn_tape *t, pn_dtype type, int rank, const int64_t *shape, pn_tensor **out);

/* Where gradients of leaves are: home makes *grad, of the leaf's shape and grad_dtype and with undefined values, for a
 * leaf that has none yet (the leaf owns the reference); or leaves it NULL, and the tape makes it in its pool. NULL: all
 * are the tape's. Stays over a reset. */
typedef pn_status (*pn_tape_home)(void *ctx, pn_tape *t, pn_tensor *leaf, pn_tensor **grad);
void pn_tape_gradient_home(pn_tape *t, pn_tape_home home, void *ctx);
bool pn_tape_has_home(const pn_tape *t);
/* While recording: passed(ctx, t, index) is called when backward is through with everything that is recorded from here
 * on, and what that read has its gradients: the time to send them. Elsewhere it does nothing. */
typedef pn_status (*pn_tape_passed)(void *ctx, pn_tape *t, int index);
pn_status pn_tape_mark(pn_tape *t, pn_tape_passed passed, void *ctx, int index);

/* Gradients accumulate into ->grad of every leaf that wants_grad; records and saved values are freed as it passes them.
 * `loss` has one element. PN_NUMERIC when the loss is not finite. */
pn_status pn_tape_backward(pn_tape *t, pn_tensor *loss);
/* Without that check, which waits for the GPU: the caller makes it before anything comes of the gradients. */
pn_status pn_tape_backward_unchecked(pn_tape *t, pn_tensor *loss);
/* The same from n outputs with given gradients (same shapes), which are added. */
pn_status pn_tape_backward_from(pn_tape *t, pn_tensor *const *outputs, pn_tensor *const *grads, int n);

/* Recompute: runs body without recording and keeps only its inputs; backward runs it again, recording, and goes
 * through. body must be a pure function of in[] and ctx (copied, at most PN_OP_ATTR_BYTES) and return n_out tensors
 * made on the tape. Parameters it reads through ctx receive their gradients as usual. */
typedef pn_status (*pn_tape_body)(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out,
                                  int n_out);
pn_status pn_tape_recompute(pn_tape *t, pn_tape_body body, const void *ctx, size_t ctx_bytes, pn_tensor *const *in,
                            int n_in, pn_tensor **out, int n_out);

/* Totals since the last reset, from cost(): what the plan backend reports besides peak memory. */
pn_op_cost pn_tape_cost(const pn_tape *t);

#endif
