#include "range.h"

#include <nvtx3/nvToolsExt.h>

void pn_range_begin(const char *name, int64_t number) {
    const nvtxEventAttributes_t attributes = { .version = NVTX_VERSION,
                                               .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                               .payloadType =
                                                   number < 0 ? NVTX_PAYLOAD_UNKNOWN : NVTX_PAYLOAD_TYPE_INT64,
                                               .payload.llValue = number,
                                               .messageType = NVTX_MESSAGE_TYPE_ASCII,
                                               .message.ascii = name };
    (void)nvtxDomainRangePushEx(NULL, &attributes);
}

void pn_range_end(void) {
    (void)nvtxRangePop();
}
