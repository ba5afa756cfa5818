#include "compute.h"

#include "device.h"
#include "log.h"

enum { DEVICE_CPU, DEVICE_CUDA };
enum { PRECISION_AUTO, PRECISION_F32, PRECISION_BF16 };
static const char *const devices[] = { "cpu", "cuda", NULL };
static const char *const precisions[] = { "auto", "f32", "bf16", NULL };

const pn_option pn_compute_option_table[] = {
    PN_OPT_ENUM(pn_compute_options, device, "cpu", devices, "where everything is computed: cpu, or one NVIDIA GPU"),
    PN_OPT_ENUM(pn_compute_options, precision, "auto", precisions,
                "of activations and matrices; auto: bf16 on cuda, with F32 masters in the optimizer, and f32 on cpu"),
    PN_OPT_END,
};

pn_status pn_compute_open(const pn_compute_options *o, const char *where, pn_compute *out) {
    const bool cuda = o->device == DEVICE_CUDA;
    PN_CHECK(cuda || o->precision != PRECISION_BF16, PN_USAGE, "%s: bf16 needs device: cuda; the CPU computes in f32",
             where);
    if (cuda) PN_TRY(pn_device_open());
    *out = pn_compute_asked(o);
    return PN_OK;
}

pn_compute pn_compute_asked(const pn_compute_options *o) {
    if (o->device != DEVICE_CUDA) return (pn_compute){ PN_CPU, PN_F32 };
    return (pn_compute){ PN_CUDA, o->precision == PRECISION_F32 ? PN_F32 : PN_BF16 };
}

pn_status pn_compute_tell(const pn_compute *c) {
    pn_device_info gpu;
    if (c->backend != PN_CUDA) return PN_OK;
    PN_TRY(pn_device_describe(&gpu));
    pn_info("%s, compute capability %d.%d, %.1f of %.1f GB free; computing in %s", gpu.name, gpu.major, gpu.minor,
            (double)gpu.free_bytes / 1e9, (double)gpu.memory_bytes / 1e9, pn_dtype_name(c->dtype));
    pn_event e = pn_event_begin("device");
    pn_event_str(&e, "name", gpu.name);
    pn_event_str(&e, "precision", pn_dtype_name(c->dtype));
    pn_event_i64(&e, "driver", gpu.driver);
    pn_event_i64(&e, "runtime", gpu.runtime);
    pn_event_end(&e);
    return PN_OK;
}
