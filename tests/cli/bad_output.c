/* Output that finds its disk read-only or full, in one table: what the program says, and that nothing half-written is
 * left. Each row runs in a mount namespace of its own, with a tmpfs at disk/; where the system grants none (most
 * containers), the test says so and passes. */
#include "bad_fixture.h"
#include "files.h"

static const struct {
    const char *what, *mount, *command, *message,
        *left; /* left: what disk/ holds then, one name after another, without what TensorBoard reads */
} table[] = {
    { "model on a read-only disk", "ro", "import base disk/out",
      "disk/out.postnas-partial: cannot make this directory: Read-only file system", "" },
    { "shards on a read-only disk", "ro", "data --quiet --tokenizer qs --out disk/out good.yaml",
      "disk/out.postnas-partial: cannot make this directory: Read-only file system", "" },
    { "run on a read-only disk", "ro", "search --quiet --config good.yaml --set output=disk/run",
      "disk/run.postnas-partial: cannot make this directory: Read-only file system", "" },
    { "model on a full disk", "size=64k", "import base disk/out",
      "disk/out.postnas-partial/model.safetensors.part: cannot be written: No space left on device", "" },
    { "shards on a full disk", "size=64k", "data --quiet --tokenizer qs --out disk/out good.yaml",
      "disk/out.postnas-partial/train.postnas-partial/...: cannot ...No space left on device; nothing was changed",
      "" },
    /* A run directory stays: with room on the disk the same command goes on. */
    { "run on a full disk", "size=120k",
      "search --quiet --config good.yaml --set output=disk/run --set supernet.tokens=2048",
      "disk/run/state/...No space left on device",
      "disk/run disk/run/config.yaml disk/run/lock disk/run/log.jsonl disk/run/state disk/run/state/inputs.json "
      "disk/run/state/seconds.json "
      "disk/run/state/supernet disk/run/state/supernet/layer-0 " },
};

static bool namespaces_work(const char *dir) {
    char command[512];
    snprintf(command, sizeof command, "cd %s && unshare -rm mount -t tmpfs none disk 2>/dev/null", dir);
    return system(command) == 0;
}

START_TEST(nothing_half_written_stays) {
    enum { ROWS = sizeof table / sizeof *table };
    char dir[256], command[2048], *text;
    size_t n;
    strcpy(dir, scratch("template"));
    make_template();
    shell(dir, "mkdir disk");
    if (!namespaces_work(dir)) ck_skip("no mount namespaces here (unshare -rm mount)");
    for (int i = 0; i < ROWS; i++) {
        snprintf(command, sizeof command,
                 "cd %s && unshare -rm sh -c 'mount -t tmpfs -o %s none disk && { %s %s >out 2>err </dev/null; echo "
                 "code $? >>out; find disk -mindepth 1 -name tensorboard -prune -o -mindepth 1 -print | LC_ALL=C sort "
                 "| tr \"\\n\" \" \" >left; }'",
                 dir, table[i].mount, POSTNAS_BIN, table[i].command);
        ck_assert_int_eq(system(command), 0);
        ck_ok(pn_file_read(scratch("template/out"), 1 << 16, &text, &n));
        ck_assert_msg(!strcmp(text, "code 2\n"), "%s: %s", table[i].what, text);
        free(text);
        ck_ok(pn_file_read(scratch("template/err"), 1 << 13, &text, &n));
        const char *wrong = wrong_error(text, table[i].message);
        ck_assert_msg(!wrong, "%s: %s: %s", table[i].what, wrong, text);
        free(text);
        ck_ok(pn_file_read(scratch("template/left"), 1 << 16, &text, &n));
        ck_assert_msg(!strcmp(text, table[i].left), "%s: left behind: %s", table[i].what, text);
        free(text);
    }
}
END_TEST

TEST_MAIN("bad_output", nothing_half_written_stays)
