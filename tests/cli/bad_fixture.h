/* What the tables of bad input and bad output share: files to spoil, a shell to spoil them with, and what an error
 * message must look like. */
#ifndef PN_TESTS_BAD_FIXTURE_H
#define PN_TESTS_BAD_FIXTURE_H

#include <ctype.h>
#include <stdbool.h>

#include "../io/io_fixture.h"
#include "cli_fixture.h"

/* le N X: X as N little-endian bytes. z N: N zero bytes. st HEADER N: a safetensors file with N bytes of data.
 * s TEXT: a GGUF string. gguf TENSORS KEYS: its first 24 bytes. key NAME TYPE: up to the value.
 * tensor NAME TYPE OFFSET DIM...: a row of the list. to KEY JSON FILE: a config.json's key becomes that. */
static const char prelude[] =
    "set -e\n"
    "le() { n=$1; x=$2; while [ $n -gt 0 ]; do printf \"\\\\$(printf %03o $((x & 255)))\"; x=$((x >> 8)); "
    "n=$((n - 1)); done; }\n"
    "z() { head -c $1 /dev/zero; }\n"
    "st() { le 8 ${#1}; printf %s \"$1\"; z $2; }\n"
    "s() { le 8 ${#1}; printf %s \"$1\"; }\n"
    "gguf() { printf GGUF; le 4 3; le 8 $1; le 8 $2; }\n"
    "key() { s $1; le 4 $2; }\n"
    "tensor() { s $1; t=$2; o=$3; shift 3; le 4 $#; for d; do le 8 $d; done; le 4 $t; le 8 $o; }\n"
    "to() { sed -i \"s|\\\"$1\\\": [^,}]*|\\\"$1\\\": $2|\" $3; }\n";

/* Runs a script in dir. */
static inline void shell(const char *dir, const char *script) {
    static char command[1 << 14];
    int n = snprintf(command, sizeof command, "%scd %s\n%s", prelude, dir, script);
    ck_assert(n > 0 && (size_t)n < sizeof command);
    ck_assert_msg(system(command) == 0, "failed: %s", script);
}

/* The scratch directory's template/, with
 *     base/       a small llama model in two shards with an index
 *     hyb/        the same weights under a jet_nemotron config
 *     qs/         the quickstart's base with its tokenizer
 *     good.yaml   a search on qs that would run
 *     set/        token shards made with qs's tokenizer */
static inline void make_template(void) {
    char script[4096];
    snprintf(script, sizeof script,
             "mkdir template && cd template && cp -r %s/tests/data/golden/llama_tiny base && rm base/expected*\n"
             "cp -r %s/data/quickstart-base qs && mkdir hyb && cd hyb && ln -s ../base/model* . && cd ..\n"
             "sed 's|\"llama\"|\"jet_nemotron\"|; s|\"rope_scaling\": null|\"layer_types\": [\"jet\", \"attn\", "
             "\"jet\"], \"efficient_attention_config\": {\"jet\": {\"num_heads\": 2, \"expand_v\": 2}}|' "
             "base/config.json > hyb/config.json\n"
             "sed 's|data/quickstart-base|qs|; s|runs/quickstart|run|' %s/configs/quickstart.yaml > good.yaml\n"
             "%s data --quiet --tokenizer qs --out set good.yaml > /dev/null\n"
             "%s config search --print --config good.yaml > /dev/null",
             POSTNAS_SOURCE_DIR, POSTNAS_SOURCE_DIR, POSTNAS_SOURCE_DIR, POSTNAS_BIN, POSTNAS_BIN);
    shell(scratch("."), script);
}

/* Whether text is the pattern, whose every "..." stands for anything. */
static inline bool matches(const char *text, const char *pattern) {
    const char *dots = strstr(pattern, "...");
    if (!dots) return !strcmp(text, pattern);
    size_t n = (size_t)(dots - pattern);
    if (strncmp(text, pattern, n) != 0) return false;
    for (text += n;; text++) {
        if (matches(text, dots + 3)) return true;
        if (!*text) return false;
    }
}

/* What is wrong with standard error as an error of one printable line with this message; NULL: nothing. */
static inline const char *wrong_error(const char *said, const char *message) {
    static const char lead[] = "postnas: error: ";
    char line[1 << 13];
    size_t n = strlen(said);
    if (strncmp(said, lead, sizeof lead - 1) != 0 || said[n - 1] != '\n' || n > sizeof line)
        return "this is no error message";
    memcpy(line, said, n - 1);
    line[n - 1] = '\0';
    for (size_t i = 0; i < n - 1; i++)
        if (iscntrl((unsigned char)line[i])) return "the message is not one printable line";
    return matches(line + sizeof lead - 1, message) ? NULL : "the message is another";
}

#endif
