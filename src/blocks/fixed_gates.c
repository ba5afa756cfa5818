#include "fixed_gates.h"

#include "device.h"

enum { MOST_HEADS = 4096 };

/* Decoding is recorded on the GPU (replay.h), where gates are F32. */
static pn_status write_row(pn_tensor *to, const double *row) {
    float values[MOST_HEADS];
    if (pn_pool_kind_of(to->storage->pool) != PN_POOL_DEVICE) return pn_tensor_write(to, row, PN_F64);
    PN_ASSERT(to->dtype == PN_F32);
    pn_convert(values, PN_F32, row, PN_F64, pn_tensor_elems(to));
    return pn_device_upload_constant(pn_data(to), values, pn_tensor_bytes(to));
}

/* The first row, then as many rows again as there are, until all are there: a few copies, wherever the tensor is. */
pn_status pn_fixed_gates(pn_tape *t, int64_t tokens, int64_t heads, double (*value)(int64_t head), pn_tensor **out) {
    const pn_dtype type = pn_wide_dtype(pn_tape_dtype(t));
    double row[MOST_HEADS];
    PN_CHECK(heads <= MOST_HEADS, PN_USAGE, "a block of %lld heads; %d are possible", (long long)heads,
             (int)MOST_HEADS);
    PN_TRY(pn_tape_new(t, type, 2, (int64_t[]){ tokens, heads }, out));
    if (!tokens) return PN_OK;
    for (int64_t h = 0; h < heads; h++) row[h] = value(h);
    pn_tensor *first;
    PN_TRY(pn_tensor_rows(*out, 0, 1, &first));
    PN_TRY(pn_tape_own(t, first));
    PN_TRY(write_row(first, row));
    const size_t bytes = (size_t)heads * pn_dtype_bytes(type);
    for (int64_t done = 1; done < tokens;) {
        const int64_t more = done < tokens - done ? done : tokens - done;
        PN_TRY(pn_storage_copy((*out)->storage, (size_t)done * bytes, (*out)->storage, 0, (size_t)more * bytes));
        done += more;
    }
    return PN_OK;
}
