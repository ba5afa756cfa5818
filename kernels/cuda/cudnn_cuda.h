/* Graphs of operations that cuDNN makes one plan of, through its backend interface in C. The library is loaded when
 * first asked for: a machine without it has the kernels of this program.
 *
 *     pn_cudnn_graph *g;
 *     pn_cudnn_graph_begin(&g);
 *     pn_cudnn_tensor x = pn_cudnn_add_tensor(g, &(pn_cudnn_shape){ ... }); ...   tensors of 4 dimensions
 *     pn_cudnn_add_matmul(g, ...); ...                                            operations, in order
 *     pn_cudnn_graph_end(&g, &plan);                                              NULL where no engine takes it
 *
 * What fails in between is kept and makes the end fail. */
#ifndef PN_KERNELS_CUDA_CUDNN_CUDA_H
#define PN_KERNELS_CUDA_CUDNN_CUDA_H

#if defined __has_include
#if __has_include(<cudnn_graph.h>)
#define PN_HAVE_CUDNN 1
#endif
#endif

#ifdef PN_HAVE_CUDNN

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cudnn_graph.h>

#include "status.h"

typedef struct pn_cudnn_graph pn_cudnn_graph;
typedef struct pn_cudnn_plan pn_cudnn_plan;
typedef cudnnBackendDescriptor_t pn_cudnn_tensor; /* owned by its graph */

typedef struct pn_cudnn_shape {
    int64_t id; /* by which pn_cudnn_run() names its values; 0: none are kept */
    cudnnDataType_t type;
    int64_t size[4], stride[4]; /* elements */
    bool scalar;                /* its value is read from the host when the plan runs */
    pn_cudnn_tensor offset;     /* [size[0] + 1, 1, 1, 1], elements from the start to each of the first dimension; NULL:
                                   stride[0] apart */
} pn_cudnn_shape;

/* PN_UNSUPPORTED when the library cannot be loaded. */
pn_status pn_cudnn_graph_begin(pn_cudnn_graph **out);
pn_cudnn_tensor pn_cudnn_add_tensor(pn_cudnn_graph *g, const pn_cudnn_shape *shape);
/* y = mode(x, b), computed as `type`; b, t: NULL where the mode has none; t chooses x or b. axis: of an index. */
void pn_cudnn_add_pointwise(pn_cudnn_graph *g, cudnnPointwiseMode_t mode, cudnnDataType_t type, pn_cudnn_tensor x,
                            pn_cudnn_tensor b, pn_cudnn_tensor t, pn_cudnn_tensor y, int64_t axis);
/* c = a b, of the last two dimensions. m, n, k: how many of each are there, [size[0], 1, 1, 1]; NULL: all. */
void pn_cudnn_add_matmul(pn_cudnn_graph *g, pn_cudnn_tensor a, pn_cudnn_tensor b, pn_cudnn_tensor c, pn_cudnn_tensor m,
                         pn_cudnn_tensor n, pn_cudnn_tensor k);
/* Over the dimensions in which y has size 1 (or fewer). */
void pn_cudnn_add_reduction(pn_cudnn_graph *g, cudnnReduceTensorOp_t op, pn_cudnn_tensor x, pn_cudnn_tensor y);
void pn_cudnn_add_reshape(pn_cudnn_graph *g, pn_cudnn_tensor x, pn_cudnn_tensor y);
/* Frees the graph. *out: owned, NULL and PN_OK where no engine has a plan within most_bytes of workspace, and where
 * repeatable is set, one whose results are the same bits every time. */
pn_status pn_cudnn_graph_end(pn_cudnn_graph **g, size_t most_bytes, bool repeatable, pn_cudnn_plan **out);

size_t pn_cudnn_workspace(const pn_cudnn_plan *p);
/* address[i]: of the values of id[i]; of the host's for scalars. name: the implementation's, for messages. */
pn_status pn_cudnn_run(const pn_cudnn_plan *p, const char *name, int n, const int64_t *id, void *const *address,
                       void *workspace);
void pn_cudnn_plan_free(pn_cudnn_plan **p);
#endif

#endif
