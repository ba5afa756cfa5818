/* postnas import: what it prints, what it writes, and that a mistake writes nothing. */
#include "cli_fixture.h"

#include "../io/io_fixture.h"
#include "model_load.h"

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden/"

START_TEST(writes_a_model) {
    char out[256], command[1024];
    strcpy(out, scratch("model"));
    snprintf(command, sizeof command, "import %sllama_tiny %s --dtype bf16 --shard-gb 0.001", GOLDEN, out);
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, out);
    holds(r.out, "llama, 3 layers, 134340 parameters, bf16");
    ck_assert_str_eq(r.err, "");
    pn_model *m;
    ck_ok(pn_model_load(out, PN_F32, &m));
    ck_assert_int_eq(m->config.file_dtype, PN_BF16);
    pn_model_destroy(&m);

    char message[1024];
    snprintf(message, sizeof message, "%s exists and is not an empty directory; choose another or remove it first",
             out);
    refuses(command, 2, message);
}
END_TEST

START_TEST(refuses_mistakes) {
    char command[1024], message[1024];
    snprintf(command, sizeof command, "import %sqwen2_tiny %s --dtype int8", GOLDEN, scratch("out"));
    refuses(command, 2, "postnas import: --dtype is int8; it must be one of: f32, bf16, f16");
    snprintf(command, sizeof command, "import %s %s", scratch("absent"), scratch("out"));
    snprintf(message, sizeof message, "%s: there is no such directory or file", scratch("absent"));
    refuses(command, 2, message);
    snprintf(command, sizeof command, "import %sqwen2_tiny/config.json %s", GOLDEN, scratch("out"));
    ck_assert_int_eq(program(command).code, 2);
    snprintf(command, sizeof command, "import %sqwen2_tiny", GOLDEN);
    ck_assert_int_eq(program(command).code, 2);
    ck_assert_int_ne(access(scratch("out"), F_OK), 0);
}
END_TEST

TEST_MAIN("cli_import", writes_a_model, refuses_mistakes)
