#include "cli.h"

#include <errno.h>
#include <string.h>

#include "args.h"
#include "command.h"
#include "log.h"
#include "signals.h"
#include "threads.h"

static bool verbose;

bool pn_cli_verbose(void) {
    return verbose;
}

static void print_help(FILE *out) {
    int n;
    const pn_command *const *commands = pn_commands(&n);
    fputs("postnas: post-training neural architecture search\n\n"
          "Turns a pre-trained full-attention language model into a fast hybrid: finds the layers that need full\n"
          "attention, the linear block that serves the others, and its shape.\n\n"
          "usage: postnas COMMAND [options]\n\ncommands:\n",
          out);
    for (int i = 0; i < n; i++) fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n`postnas COMMAND --help` explains a command. `postnas --version` prints the version.\n"
          "\nenvironment:\n"
          "  PN_LOG=debug          prints debug messages; or of rooms: PN_LOG=tape,search\n"
          "  CUDA_VISIBLE_DEVICES  the GPUs to choose from; the first is taken\n"
          "  LD_LIBRARY_PATH       where libcudnn and libcublasLt are looked for, if not where the system knows them\n"
          "  PN_CUDA_VARY=1        bench: the faster backward of cuDNN's attention, whose bits vary from run to run;\n"
          "                        training is told by the key deterministic\n"
          "  PN_CUDA_GRAPHS=0      every kernel is launched by itself, with the same bits\n"
          "  PN_CUDA_SYNC=1        and waited for: a message names the kernel that failed\n"
          "  PN_CUDA_ARENA=0       every block of memory is CUDA's own, for its tools\n"
          "  PN_CUDA_FILL=1        what cuBLASLt and cuDNN are to write is filled first, for compute-sanitizer's "
          "initcheck\n"
          "  PN_CUDA_SHARED=KB     no block takes more shared memory: what a smaller GPU would run\n",
          out);
}

static pn_status find_command(const char *name, const pn_command **out) {
    *out = pn_command_find(name);
    if (*out) return PN_OK;
    enum { MOST = 64 };
    const char *names[MOST];
    int n;
    const pn_command *const *commands = pn_commands(&n);
    PN_ASSERT(n <= MOST);
    for (int i = 0; i < n; i++) names[i] = commands[i]->name;
    const char *near = pn_nearest(name, names, n);
    PN_FAIL(PN_USAGE, "unknown %s %s; %s%s%ssee `postnas --help`", name[0] == '-' ? "option" : "command", name,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "");
}

static pn_status apply_common(const pn_args *args) {
    int64_t threads = 0;
    verbose = pn_args_has(args, "verbose");
    pn_log_quiet(pn_args_has(args, "quiet"));
    PN_TRY(pn_args_i64(args, "threads", 1, 4096, &threads));
    PN_TRY(pn_threads_init((int)threads));
    return PN_OK;
}

static pn_status run_command(const pn_command *command, const pn_args *args) {
    if (pn_args_has(args, "help")) {
        pn_args_help(command, stdout);
        return PN_OK;
    }
    PN_TRY(apply_common(args));
    pn_signals_install();
    const pn_status s = command->run(args);
    if (s == PN_MEMORY && command->memory && *pn_error_message()) pn_error_more(command->memory);
    PN_TRY(s);
    return PN_OK;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c) {
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

static pn_status dispatch(int argc, char **argv) {
    PN_CHECK(argc >= 2, PN_USAGE, "no command given; `postnas --help` lists them");
    if (is_one_of(argv[1], "--help", "-h", "help")) {
        print_help(stdout);
        return PN_OK;
    }
    if (is_one_of(argv[1], "--version", "-V", "version")) {
        printf("postnas %s\n", POSTNAS_VERSION);
        return PN_OK;
    }
    const pn_command *command;
    pn_args args;
    PN_TRY(find_command(argv[1], &command));
    PN_TRY(pn_args_parse(command, argc - 1, argv + 1, &args));
    pn_status s = run_command(command, &args);
    pn_args_free(&args);
    return s;
}

pn_status pn_cli_run(int argc, char **argv) {
    PN_TRY(dispatch(argc, argv));
    bool broken = ferror(stdout) != 0; /* a result cut short by a full disk is a failure */
    PN_CHECK(fflush(stdout) == 0 && !broken, PN_IO, "standard output: cannot write: %s", strerror(errno));
    return PN_OK;
}
