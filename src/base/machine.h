/* The machine this runs on. */
#ifndef PN_BASE_MACHINE_H
#define PN_BASE_MACHINE_H

#include <stdint.h>

/* The model of its processor as the system names it, "AMD EPYC 7763"; static. */
const char *pn_cpu_name(void);
/* Bytes that going round in finds in memory rather than in caches: twice the last cache, where it is known and within
 * 192 .. 512 MiB. */
int64_t pn_bytes_beyond_caches(void);
double pn_memory_bytes(void); /* physical; infinite where unknown */
double pn_memory_free(void);  /* of it, what programs could still take; infinite where unknown */

#endif
