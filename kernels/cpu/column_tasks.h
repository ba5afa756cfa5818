/* Tasks of equal weight for the threads, when heads are independent and so are the columns of a head's values.
 *
 * Heads are dealt out whole in full rounds of the threads. What is left over, which would keep some threads waiting for
 * the others, is cut into parts of at least 32 columns: each part does the head's work on queries and keys again. */
#ifndef PN_KERNELS_CPU_COLUMN_TASKS_H
#define PN_KERNELS_CPU_COLUMN_TASKS_H

#include <stdint.h>

typedef struct pn_column_tasks {
    int64_t n;                   /* tasks, the larger ones first */
    int64_t whole, parts, width; /* heads taken whole; parts of each other head, columns of a part */
    int64_t cols;                /* of a head */
} pn_column_tasks;

static inline pn_column_tasks pn_column_tasks_of(int64_t heads, int64_t cols, int64_t threads) {
    int64_t whole = heads / threads * threads, left = heads - whole, parts = left ? (threads + left - 1) / left : 1;
    int64_t width = ((cols + parts - 1) / parts + 31) / 32 * 32;
    parts = (cols + width - 1) / width;
    return (pn_column_tasks){ whole + left * parts, whole, parts, width, cols };
}

typedef struct pn_column_task {
    int64_t head, first, cols;
} pn_column_task;

static inline pn_column_task pn_column_task_at(const pn_column_tasks *t, int64_t i) {
    if (i < t->whole) return (pn_column_task){ i, 0, t->cols };
    int64_t part = i - t->whole, first = part % t->parts * t->width;
    return (pn_column_task){ t->whole + part / t->parts, first,
                             t->cols - first < t->width ? t->cols - first : t->width };
}

#endif
