/* `postnas check vectors`: golden files against every implementation that takes them. */
#ifndef PN_CLI_CHECK_VECTORS_H
#define PN_CLI_CHECK_VECTORS_H

#include "check_report.h"
#include "compute.h"
#include "safetensors.h"

/* Each path is a golden file, or a folder whose .safetensors files are taken in the order of their names (not those of
 * its folders). Prints a row per file and implementation with the worst error of each quantity and its limit, and last
 * "N passed, M failed". In a folder, a file whose kind is not built in is listed and skipped; named directly it fails.
 * `on`: where everything is computed, and in which type; the limits are that type's.
 * PN_MISMATCH: a row failed. PN_IO, PN_FORMAT: a file cannot be read or lacks a tensor of its kind. */
pn_status pn_check_vectors(char *const *paths, int n_paths, const pn_compute *on, FILE *out);

/* One file, by its kind. They add rows to the report; *built_in false: none was added, the kind is not built in. */
pn_status pn_check_core_file(const pn_safetensors *f, const char *kind, const pn_compute *on, pn_report *report,
                             bool *built_in);
pn_status pn_check_block_file(const pn_safetensors *f, const pn_compute *on, pn_report *report, bool *built_in);
pn_status pn_check_hybrid_file(const pn_safetensors *f, const pn_compute *on, pn_report *report, bool *built_in);

#endif
