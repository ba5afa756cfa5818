#include "device_refusal.h"

#define USE_CPU "or use the CPU (--device cpu)"

enum { LEAST_MAJOR = 8 }; /* tensor cores in BF16, asynchronous copies to shared memory */

pn_status pn_gpu_search_check(const pn_gpu_search *f) {
    const int driver = f->driver, runtime = f->runtime;
    PN_CHECK(driver != 0, PN_UNSUPPORTED, "no NVIDIA driver on this machine (libcuda.so.1): install it, " USE_CPU);
    PN_CHECK(f->error != PN_CUDA_OLD_DRIVER && f->error != PN_CUDA_NEWER_DRIVER, PN_UNSUPPORTED,
             "the NVIDIA driver knows CUDA %d.%d, this build of postnas needs %d.%d: update the driver, " USE_CPU,
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    PN_CHECK(f->error != PN_CUDA_NO_DEVICE && (f->error || f->n > 0), PN_UNSUPPORTED,
             "no GPU that CUDA can use on this machine%s%.64s%s: see nvidia-smi, " USE_CPU,
             f->visible ? " (CUDA_VISIBLE_DEVICES is \"" : "", f->visible ? f->visible : "", f->visible ? "\")" : "");
    PN_CHECK(!f->error, PN_DEVICE, "looking for a GPU: %s", f->words);
    return PN_OK;
}

pn_status pn_gpu_architecture_check(const char *name, int major, int minor) {
    PN_CHECK(major >= LEAST_MAJOR, PN_UNSUPPORTED,
             "%s has compute capability %d.%d, postnas needs %d.0 (Ampere) or newer: choose another GPU with "
             "CUDA_VISIBLE_DEVICES, " USE_CPU,
             name, major, minor, (int)LEAST_MAJOR);
    return PN_OK;
}

pn_status pn_gpu_ranks_check(int ranks, int gpus) {
    PN_CHECK(gpus == 1 || gpus >= ranks, PN_USAGE,
             "%d ranks on this machine and %d GPUs, and a rank needs one of its own: start fewer (--ranks %d, or as "
             "many processes a machine with mpirun or srun), " USE_CPU,
             ranks, gpus, gpus);
    return PN_OK;
}

pn_status pn_gpu_failed(const pn_gpu_failure *f, const char *what) {
    PN_CHECK(f->error != PN_CUDA_NO_MEMORY, PN_MEMORY, "%s: the GPU's memory is exhausted", what);
    char build[48] = "with -DCMAKE_CUDA_ARCHITECTURES=native";
    if (f->major) snprintf(build, sizeof build, "with -DCMAKE_CUDA_ARCHITECTURES=%d%d", f->major, f->minor);
    PN_CHECK(f->error != PN_CUDA_NO_CODE, PN_UNSUPPORTED,
             "%s: this build has code for %s and none for this GPU (compute capability %d.%d): build %s, " USE_CPU,
             what, f->archs, f->major, f->minor, build);
    PN_CHECK(
        f->error != PN_CUDA_NEWER_PTX, PN_UNSUPPORTED,
        "%s: this build (code for %s) is newer than the driver, which cannot translate it for this GPU: update the "
        "driver, build %s, " USE_CPU,
        what, f->archs, build);
    PN_CHECK(f->error != PN_CUDA_OLD_DRIVER && f->error != PN_CUDA_NEWER_DRIVER, PN_UNSUPPORTED,
             "%s: %s (%s): update the driver, " USE_CPU, what, f->words, f->name);
    PN_FAIL(PN_DEVICE, "%s: %s (%s)", what, f->words, f->name);
}
