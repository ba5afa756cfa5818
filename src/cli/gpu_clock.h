/* The GPU's clock as it is now, from the driver's management library (NVML), which the program is not linked with: it
 * is loaded when first asked. Built with the CUDA backend only. */
#ifndef PN_CLI_GPU_CLOCK_H
#define PN_CLI_GPU_CLOCK_H

/* MHz of the multiprocessors of the GPU in use; 0 where NVML is missing or does not say. */
int pn_gpu_clock_mhz(void);

#endif
