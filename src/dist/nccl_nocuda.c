/* NCCL where the build has no CUDA. */
#include "comm.h"

pn_status pn_comm_nccl(pn_control *control, pn_comm **out) {
    (void)control, (void)out;
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA backend, so no NCCL: several ranks compute on the CPU");
}
