#include "range.h"

/* NVTX is headers only, which not every CUDA has installed. */
#if __has_include(<nvtx3/nvToolsExt.h>)

#include <nvtx3/nvToolsExt.h>

void pn_range_begin(const char *name, int64_t number) {
    const nvtxEventAttributes_t attributes = { .version = NVTX_VERSION,
                                               .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                               .payloadType =
                                                   number < 0 ? NVTX_PAYLOAD_UNKNOWN : NVTX_PAYLOAD_TYPE_INT64,
                                               .payload.llValue = number,
                                               .messageType = NVTX_MESSAGE_TYPE_ASCII,
                                               .message.ascii = name };
    (void)nvtxRangePushEx(&attributes);
}

void pn_range_end(void) {
    (void)nvtxRangePop();
}

#else

void pn_range_begin(const char *name, int64_t number) {
    (void)name, (void)number;
}
void pn_range_end(void) {}

#endif
