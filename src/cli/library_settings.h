/* Settings that OpenBLAS and libgomp read from the environment while they are loaded: too early for main(). */
#ifndef PN_CLI_LIBRARY_SETTINGS_H
#define PN_CLI_LIBRARY_SETTINGS_H

/* Where a setting that the user left open should differ from the library's own choice, sets it and starts the program
 * again, in the same process and with the same arguments. Returns when nothing is to be changed, or nothing can be. */
void pn_library_settings(char **argv);

#endif
