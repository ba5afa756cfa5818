/* postnas_mpi.so: the one file that is compiled against MPI. It knows nothing of postnas but the table it fills. */
#include "mpi_plugin.h"

#include <mpi.h>
#include <stdio.h>

enum { TAG = 17 };

static MPI_Request request[2] = { MPI_REQUEST_NULL, MPI_REQUEST_NULL };

static int failed(int code, char why[PN_MPI_WHY]) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS) return 0;
    MPI_Error_string(code, text, &n);
    snprintf(why, PN_MPI_WHY, "%.200s", text);
    return 1;
}

static int plugin_open(int *rank, int *size, char why[PN_MPI_WHY]) {
    int provided = 0;
    /* the main thread starts it, a thread of the communicator uses it, one at a time */
    if (failed(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided), why)) return 1;
    if (provided < MPI_THREAD_SERIALIZED) {
        snprintf(why, PN_MPI_WHY, "this MPI was built without support for threads (MPI_THREAD_SERIALIZED)");
        return 1;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return failed(MPI_Comm_rank(MPI_COMM_WORLD, rank), why) || failed(MPI_Comm_size(MPI_COMM_WORLD, size), why);
}

static int plugin_broadcast(void *bytes, int n_bytes, char why[PN_MPI_WHY]) {
    return failed(MPI_Bcast(bytes, n_bytes, MPI_BYTE, 0, MPI_COMM_WORLD), why);
}

static int plugin_post(int to, const void *out, int n_out, int from, void *in, int n_in, char why[PN_MPI_WHY]) {
    request[0] = request[1] = MPI_REQUEST_NULL;
    if (from >= 0 && failed(MPI_Irecv(in, n_in, MPI_BYTE, from, TAG, MPI_COMM_WORLD, &request[0]), why)) return 1;
    return to >= 0 && failed(MPI_Isend(out, n_out, MPI_BYTE, to, TAG, MPI_COMM_WORLD, &request[1]), why);
}

static int plugin_test(int *done, char why[PN_MPI_WHY]) {
    return failed(MPI_Testall(2, request, done, MPI_STATUSES_IGNORE), why);
}

static void plugin_close(void) {
    MPI_Finalize();
}

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

const pn_mpi_plugin pn_mpi_plugin_table = {
    .version = PN_MPI_PLUGIN_VERSION,
#ifdef OMPI_MAJOR_VERSION
    .library = "Open MPI " TEXT(OMPI_MAJOR_VERSION) "." TEXT(OMPI_MINOR_VERSION) "." TEXT(OMPI_RELEASE_VERSION),
#else
    .library = "MPI " TEXT(MPI_VERSION) "." TEXT(MPI_SUBVERSION),
#endif
    .open = plugin_open,
    .broadcast = plugin_broadcast,
    .post = plugin_post,
    .test = plugin_test,
    .close = plugin_close,
};
