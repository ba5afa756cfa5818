/* Every kind of bad input in one table: what is broken, how it comes about, the command that meets it, and what the
 * program says. For each row the exit code is 2, the message one printable line, standard output empty, and no file
 * there before has changed, gone or been joined by another.
 *
 * A row's shell runs in an empty directory that has
 *     base/    a small llama model in two shards with an index
 *     hyb/     base's files with a jet_nemotron config
 *     qs/      the quickstart's base with its tokenizer
 *     good.yaml   a search on qs that would run
 *     set/     token shards made with qs's tokenizer
 * and helpers to write binary files (see `prelude`). In a message "..." stands for anything. */
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

typedef struct bad {
    const char *what, *how, *command, *message;
} bad;

#define IN_M          " > model.safetensors && mkdir m && mv base/config.json model.safetensors m"
#define ST(header, n) "st '" header "' " #n IN_M
#define ONE(dtype, shape, begin, end)                                                                                  \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}}"
#define CONFIG(key, value) "to " key " '" value "' base/config.json"
#define HYBRID(key, value) "to " key " '" value "' hyb/config.json"
#define INDEX(map)         "printf %s '" map "' > base/model.safetensors.index.json"
#define YAML(line)         "printf -- '" line "\n' >> good.yaml"
#define BASE               "import base out"
#define HYB                "import hyb out"
#define M                  "import m out"
#define GGUF               "import m.gguf out"
#define SEARCH             "search --config good.yaml --quiet"
#define DATA               "data --quiet --tokenizer qs --out out --format "

static const bad table[] = {
    /* ---- safetensors ---- */
    { "no bytes", ": " IN_M, M, "" },
    { "fewer bytes than a header's length", "printf 1234567" IN_M, M, "" },
    { "header longer than the file", "{ le 8 100; printf '{}'; }" IN_M, M, "" },
    { "header length beyond the format", "{ le 8 -1; printf '{}'; }" IN_M, M, "" },
    { "header is no JSON", ST("hello", 0), M, "" },
    { "header is a list", ST("[]", 0), M, "" },
    { "NUL byte in the header", "{ le 8 8; printf '{\"a\\0\":1}'; }" IN_M, M, "" },
    { "tensor named twice", ST("{\"a\":{},\"a\":{}}", 0), M, "" },
    { "data cut short", ST(ONE("\"F32\"", "[4]", 0, 16), 15), M, "" },
    { "shard cut short", "truncate -s -1 base/model-00002-of-00002.safetensors", BASE, "" },
    { "bytes after the last tensor", ST(ONE("\"F32\"", "[4]", 0, 16), 17), M, "" },
    { "gap before a tensor", ST(ONE("\"F32\"", "[3]", 4, 16), 16), M, "" },
    { "tensors overlap",
      ST("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12),
      M, "" },
    { "offsets backwards", ST(ONE("\"F32\"", "[1]", 8, 4), 8), M, "" },
    { "offsets negative", ST(ONE("\"F32\"", "[1]", -4, 0), 8), M, "" },
    { "offsets that are no integers", ST(ONE("\"F32\"", "[1]", 0.0, 4.0), 8), M, "" },
    { "size unlike shape and type", ST(ONE("\"F32\"", "[3]", 0, 16), 16), M, "" },
    { "size of no whole number of bytes", ST(ONE("\"F4\"", "[3]", 0, 2), 2), M, "" },
    { "shape overflows", ST(ONE("\"F32\"", "[4294967296, 4294967296]", 0, 4), 4), M, "" },
    { "size overflows", ST(ONE("\"F32\"", "[4611686018427387904]", 0, 4), 4), M, "" },
    { "dimension negative", ST(ONE("\"F32\"", "[-1]", 0, 4), 4), M, "" },
    { "dimension beyond 64 bits", ST(ONE("\"F32\"", "[99999999999999999999]", 0, 4), 4), M, "" },
    { "shape is no list", ST(ONE("\"F32\"", "4", 0, 16), 16), M, "" },
    { "too many dimensions", ST(ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", 0, 4), 4), M, "" },
    { "type is no text", ST(ONE("7", "[4]", 0, 16), 16), M, "" },
    { "type unknown, where a weight is expected",
      ST("{\"model.embed_tokens.weight\":{\"dtype\":\"X9\",\"shape\":[384,60],\"data_offsets\":[0,0]}}", 0), M, "" },
    { "tensor of another model", ST(ONE("\"F32\"", "[4]", 0, 16), 16), M, "" },
    { "control characters in a name",
      ST("{\"a\\u001b[2J\\n\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,8]}}", 8), M, "" },
    { "metadata that is no text", ST("{\"__metadata__\":{\"format\":1}}", 0), M, "" },
    { "a directory in place of the file", "mkdir -p m/model.safetensors && mv base/config.json m", M, "" },

    /* ---- the index ---- */
    { "index is no JSON", INDEX("{"), BASE, "" },
    { "index without weight_map", INDEX("{}"), BASE, "" },
    { "index names a file that is missing", INDEX("{\"weight_map\":{\"a\":\"lost.safetensors\"}}"), BASE, "" },
    { "index names a file above", INDEX("{\"weight_map\":{\"a\":\"../base/model-00001-of-00002.safetensors\"}}"), BASE,
      "" },
    { "index names an absolute path", INDEX("{\"weight_map\":{\"a\":\"/etc/passwd\"}}"), BASE, "" },
    { "index names its own directory", INDEX("{\"weight_map\":{\"a\":\"..\"}}"), BASE, "" },
    { "index names no text", INDEX("{\"weight_map\":{\"a\":1}}"), BASE, "" },
    { "index names a FIFO", "mkfifo base/f; " INDEX("{\"weight_map\":{\"a\":\"f\"}}"), BASE, "" },
    { "index names a tensor its file lacks", INDEX("{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}"),
      BASE, "" },

    /* ---- config.json ---- */
    { "config missing", "rm base/config.json", BASE, "" },
    { "config empty", ": > base/config.json", BASE, "" },
    { "config is no JSON", "printf '{\"a\": 1,}' > base/config.json", BASE, "" },
    { "config of broken UTF-8", "printf '{\"\\377\": 1}' > base/config.json", BASE, "" },
    { "config nested deeply",
      "{ printf '{\"a\": '; z 100 | tr '\\0' '['; z 100 | tr '\\0' ']'; printf '}'; } > "
      "base/config.json",
      BASE, "" },
    { "config too large", "z 17000000 > base/config.json", BASE, "" },
    { "key twice", CONFIG("hidden_size", "60, \"hidden_size\": 61"), BASE, "" },
    { "key missing", "sed -i /vocab_size/d base/config.json", BASE, "" },
    { "model type unknown", CONFIG("model_type", "\"mamba\""), BASE, "" },
    { "number as text", CONFIG("hidden_size", "\"60\""), BASE, "" },
    { "number with a fraction", CONFIG("num_hidden_layers", "3.0"), BASE, "" },
    { "number negative", CONFIG("intermediate_size", "-1"), BASE, "" },
    { "number beyond 64 bits", CONFIG("vocab_size", "1000000000000000000000"), BASE, "" },
    { "layers absurd", CONFIG("num_hidden_layers", "1000000"), BASE, "" },
    { "width absurd", CONFIG("hidden_size", "2147483580"), BASE, "" },
    { "vocabulary absurd", CONFIG("vocab_size", "2000000000"), BASE, "" },
    { "MLP wider than the file has it", CONFIG("intermediate_size", "1048576"), BASE, "" },
    { "heads that do not share keys evenly", CONFIG("num_key_value_heads", "2"), BASE, "" },
    { "no heads", CONFIG("num_attention_heads", "0"), BASE, "" },
    { "head of odd width", CONFIG("head_dim", "19"), BASE, "" },
    { "heads of another width than the file's", CONFIG("head_dim", "40"), BASE, "" },
    { "epsilon zero", CONFIG("rms_norm_eps", "0"), BASE, "" },
    { "theta twice, two values", CONFIG("rope_scaling", "null, \"rope_parameters\": {\"rope_theta\": 5.0}"), BASE, "" },
    { "positions scaled", CONFIG("rope_scaling", "{\"rope_type\": \"yarn\"}"), BASE, "" },
    { "other activation", CONFIG("hidden_act", "\"gelu\""), BASE, "" },
    { "more layers than the file has", CONFIG("num_hidden_layers", "4"), BASE, "" },
    { "fewer layers than the file has", CONFIG("num_hidden_layers", "2"), BASE, "" },
    { "head asked for that is not there", CONFIG("tie_word_embeddings", "false"), BASE, "" },
    { "end of text outside the vocabulary", CONFIG("eos_token_id", "384"), BASE, "" },
    { "layer types fewer than layers", HYBRID("layer_types", "[\"attn\"]"), HYB, "" },
    { "layer type unknown", HYBRID("layer_types", "\"[attn]\""), HYB, "" },
    { "layer type without settings", "sed -i s/efficient_attention_config/efficient/ hyb/config.json", HYB, "" },
    { "block setting unknown", HYBRID("expand_v", "2, \"expand_k\": 1"), HYB, "" },
    { "block setting mistyped", HYBRID("num_heads", "[2]"), HYB, "" },
    { "block setting absurd", HYBRID("num_heads", "1000000"), HYB, "" },
    { "block settings that contradict each other", HYBRID("expand_v", "2.03"), HYB, "" },
    { "block of 4 GiB that the file does not have",
      "to num_heads 1024 hyb/config.json; to head_dim 20 hyb/config.json; " HYBRID("expand_v", "16"), HYB, "" },

    /* ---- GGUF ---- */
    { "not GGUF", "printf 'GGML and more than 24 bytes' > m.gguf", GGUF, "" },
    { "cut inside the frame", "gguf 0 0 | head -c 23 > m.gguf", GGUF, "" },
    { "version unknown", "{ printf GGUF; le 4 9; z 16; } > m.gguf", GGUF, "" },
    { "big-endian", "{ printf GGUF; printf '\\0\\0\\0\\003'; z 16; } > m.gguf", GGUF, "" },
    { "more keys than bytes", "gguf 0 -1 > m.gguf", GGUF, "" },
    { "more tensors than bytes", "gguf 1000000000000 0 > m.gguf", GGUF, "" },
    { "key's name longer than the file", "{ gguf 0 1; le 8 -1; z 64; } > m.gguf", GGUF, "" },
    { "key's type unknown", "{ gguf 0 1; key k 99; z 64; } > m.gguf", GGUF, "" },
    { "key twice", "{ gguf 0 2; key k 0; le 1 1; key k 0; le 1 1; } > m.gguf", GGUF, "" },
    { "text longer than the file", "{ gguf 0 1; key k 8; le 8 -9; z 64; } > m.gguf", GGUF, "" },
    { "list longer than the file", "{ gguf 0 1; key k 9; le 4 5; le 8 4611686018427387904; z 64; } > m.gguf", GGUF,
      "" },
    { "list whose size overflows", "{ gguf 0 1; key k 9; le 4 10; le 8 -1; z 64; } > m.gguf", GGUF, "" },
    { "lists in lists in lists",
      "{ gguf 0 1; key k 9; for i in 1 2 3 4 5 6 7 8 9; do le 4 9; le 8 1; done; z 64; } > "
      "m.gguf",
      GGUF, "" },
    { "bool of 2", "{ gguf 0 1; key k 7; le 1 2; z 64; } > m.gguf", GGUF, "" },
    { "alignment of 3", "{ gguf 0 1; key general.alignment 4; le 4 3; z 64; } > m.gguf", GGUF, "" },
    { "tensor of 5 dimensions", "{ gguf 1 0; tensor t 0 0 1 1 1 1 1; z 64; } > m.gguf", GGUF, "" },
    { "tensor whose shape overflows", "{ gguf 1 0; tensor t 0 0 4294967296 4294967296; z 64; } > m.gguf", GGUF, "" },
    { "rows of no whole blocks", "{ gguf 1 0; tensor t 2 0 33; z 64; } > m.gguf", GGUF, "" },
    { "tensor outside the file", "{ gguf 1 0; tensor t 0 32 16; z 64; } > m.gguf", GGUF, "" },
    { "offset beyond everything", "{ gguf 1 0; tensor t 0 -32 1; z 64; } > m.gguf", GGUF, "" },
    { "offset misaligned", "{ gguf 1 0; tensor t 0 4 1; z 64; } > m.gguf", GGUF, "" },
    { "tensors overlap", "{ gguf 2 0; tensor t 0 0 16; tensor u 0 32 16; z 128; } > m.gguf", GGUF, "" },
    { "tensor twice", "{ gguf 2 0; tensor t 0 0 1; tensor t 0 32 1; z 128; } > m.gguf", GGUF, "" },
    { "no architecture", "gguf 0 0 > m.gguf", GGUF, "" },
    { "architecture unknown", "{ gguf 0 1; key general.architecture 8; s mamba; } > m.gguf", GGUF, "" },
    { "size missing", "{ gguf 0 1; key general.architecture 8; s llama; } > m.gguf", GGUF, "" },
    { "size mistyped", "{ gguf 0 2; key general.architecture 8; s llama; key llama.block_count 6; z 4; } > m.gguf",
      GGUF, "" },

    /* ---- YAML ---- */
    { "configuration missing", ":", "search --config lost.yaml", "" },
    { "configuration is a directory", ":", "search --config base", "" },
    { "no YAML", YAML("a: [1, 2"), SEARCH, "" },
    { "tabs", YAML("x:\n\t- 1"), SEARCH, "" },
    { "broken UTF-8", YAML("note: caf\\351"), SEARCH, "" },
    { "NUL byte", YAML("note: a\\0b"), SEARCH, "" },
    { "key unknown, top", YAML("modle: qs"), SEARCH, "" },
    { "key unknown, in a section", "sed -i s/full_attention/full_atention/ good.yaml", SEARCH, "" },
    { "key unknown, by --set", ":", SEARCH " --set search.beam.widht=4", "" },
    { "key twice", YAML("seed: 2"), SEARCH, "" },
    { "key that is no word", YAML("\"a b\": 1"), SEARCH, "" },
    { "value of the wrong type", "sed -i 's/^seed: 1/seed: one/' good.yaml", SEARCH, "" },
    { "value out of range", ":", SEARCH " --set sequence_length=1", "" },
    { "value that is no choice", ":", SEARCH " --set search.strategy=beem", "" },
    { "list in place of a value", ":", SEARCH " --set seed=[1]", "" },
    { "value in place of a section", "sed -i '/^distill/,$d' good.yaml; " YAML("distill: 3"), SEARCH, "" },
    { "value in place of a list", ":", SEARCH " --set mixture=recall", "" },
    { "nested deeply", YAML("x: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"), SEARCH, "" },
    { "anchor", YAML("x: \\&a 1"), SEARCH, "" },
    { "alias", YAML("x: *a"), SEARCH, "" },
    { "tag", YAML("x: !!int 1"), SEARCH, "" },
    { "two documents", YAML("---\nx: 1"), SEARCH, "" },
    { "a list on top", "printf -- '- 1\n' > good.yaml", SEARCH, "" },
    { "1 MiB and more", "z 1100000 | tr '\\0' '#' > good.yaml", SEARCH, "" },
    { "an empty file", ": > good.yaml", SEARCH, "" },
    { "--set without a value", ":", SEARCH " --set seed", "" },
    { "skill unknown", "sed -i 's/skill: recall,/skill: recal,/' good.yaml", SEARCH, "" },
    { "task of the objective missing", "sed -i 's/objective: recall/objective: recal/' good.yaml", SEARCH, "" },
    { "more attention layers than layers", ":", SEARCH " --set search.limits.full_attention=9", "" },

    /* ---- tokenizer.json ---- */
    { "tokenizer missing", "rm qs/tokenizer.json", DATA "text good.yaml", "" },
    { "tokenizer is no JSON", "printf '{' > qs/tokenizer.json", DATA "text good.yaml", "" },
    { "tokenizer without a vocabulary", "printf '{}' > qs/tokenizer.json", DATA "text good.yaml", "" },
    { "tokenizer of another kind", "sed -i 's/\"BPE\"/\"WordPiece\"/' qs/tokenizer.json", DATA "text good.yaml", "" },
    { "token's id absurd", "sed -i 's/: 255/: 99999999/' qs/tokenizer.json", DATA "text good.yaml", "" },
    { "two tokens of one id", "sed -i 's/: 255/: 254/' qs/tokenizer.json", DATA "text good.yaml", "" },

    /* ---- text and JSONL ---- */
    { "file missing", ":", DATA "text lost.txt", "" },
    { "a directory", ":", DATA "text base", "" },
    { "nothing but white space", "printf ' \n\n' > t", DATA "paragraphs t", "" },
    { "empty file", ": > t", DATA "text t", "" },
    { "broken UTF-8", "printf 'good\nb\\351d\n' > t", DATA "text t", "" },
    { "UTF-16", "printf '\\377\\376a\\0' > t", DATA "text t", "" },
    { "line that is no JSON", "printf '{\"text\": \"a\"}\nnot\n' > t", DATA "jsonl t", "" },
    { "line cut short", "printf '{\"text\": \"a\"}\n{\"text\": \"b' > t", DATA "jsonl t", "" },
    { "line that is no object", "printf '[1]\n' > t", DATA "jsonl t", "" },
    { "line without the field", "printf '{\"body\": \"a\"}\n' > t", DATA "jsonl t", "" },
    { "field that is no text", "printf '{\"text\": 7}\n' > t", DATA "jsonl t", "" },
    { "NUL byte in a line", "printf '{\"text\": \"a\\0b\"}\n' > t", DATA "jsonl t", "" },
    { "half a surrogate pair", "printf '{\"text\": \"\\\\ud800\"}\n' > t", DATA "jsonl t", "" },
    { "line nested deeply", "{ z 5000 | tr '\\0' '['; echo; } > t", DATA "jsonl t", "" },
    { "line beyond 256 MiB", "{ printf '{\"text\": \"'; z 268435456 | tr '\\0' a; printf '\"}\n'; } > t",
      DATA "jsonl t", "" },
    { "gzip cut short", "seq 1 9999 | gzip | head -c 999 > t.gz", DATA "text t.gz", "" },
    { "gzip damaged", "seq 1 9999 | gzip > t.gz; printf XXXX | dd of=t.gz bs=1 seek=2000 conv=notrunc status=none",
      DATA "text t.gz", "" },

    /* ---- token shards ---- */
    { "no set there", "rm -r set/train", "data --check set/train", "" },
    { "manifest is no JSON", "printf '{' > set/train/manifest.json", "data --check set/train", "" },
    { "manifest of another format", "printf '{\"format\": \"x\"}' > set/train/manifest.json", "data --check set/train",
      "" },
    { "manifest names a file outside", "sed -i 's|shard-00000|../s|' set/train/manifest.json", "data --check set/train",
      "" },
    { "manifest claims more than the file holds",
      "sed -i 's/\"n_tokens\": [0-9]*/\"n_tokens\": 99999999999/' "
      "set/train/manifest.json",
      "data --check set/train", "" },
    { "shard missing", "rm set/train/shard-00000.h5", "data --check set/train", "" },
    { "shard cut short", "truncate -s -1 set/train/shard-00000.h5", "data --check set/train", "" },
    { "shard changed", "printf X | dd of=set/train/shard-00000.h5 bs=1 seek=3000 conv=notrunc status=none",
      "data --check set/train", "" },
    { "shards of another vocabulary",
      "sed -i 's/\"xxh3_64\": \"[0-9a-f]*\",/\"xxh3_64\": \"0000000000000000\",/; "
      "s/{ skill: recall/{ shards: [set], class_weight: 1/' set/train/manifest.json",
      SEARCH " --set mixture=[{shards: [set]}]", "" },

    /* ---- where output goes ---- */
    { "output exists", "mkdir out && touch out/mine", BASE, "" },
    { "output is a file", "touch out", BASE, "" },
    { "output below a file", ":", "import base good.yaml/out", "" },
    { "output where nothing can be made", ":", "import base /proc/out", "" },
    { "output's name too long", ":", "import base $(printf %05000d 0)", "" },
    { "run directory of another run", "mkdir run && touch run/mine", SEARCH " --set output=run", "" },
};

/* Every file there is, with size, time and inode; directories by name only, since what is made aside and removed again
 * touches their times. */
static char *listing(const char *dir) {
    static char text[2][1 << 16];
    static unsigned next;
    char command[512], *out = text[next++ % 2];
    snprintf(command, sizeof command,
             "cd %s && find . -type d -printf '%%p\n' -o -printf '%%p %%s %%T@ %%i\n' | LC_ALL=C sort", dir);
    FILE *f = popen(command, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(out, 1, sizeof text[0] - 1, f);
    out[n] = '\0';
    ck_assert_int_eq(pclose(f), 0);
    ck_assert_uint_lt(n, sizeof text[0] - 1);
    return out;
}

static void shell(const char *dir, const char *script) {
    static char command[1 << 14];
    int n = snprintf(command, sizeof command, "%scd %s\n%s", prelude, dir, script);
    ck_assert(n > 0 && (size_t)n < sizeof command);
    ck_assert_msg(system(command) == 0, "failed: %s", script);
}

/* Whether text is the pattern, whose every "..." stands for anything. */
static bool matches(const char *text, const char *pattern) {
    const char *dots = strstr(pattern, "...");
    if (!dots) return !strcmp(text, pattern);
    size_t n = (size_t)(dots - pattern);
    if (strncmp(text, pattern, n) != 0) return false;
    for (text += n;; text++) {
        if (matches(text, dots + 3)) return true;
        if (!*text) return false;
    }
}

/* What is wrong with how the program met this row; NULL: nothing. */
static const char *try_row(const bad *row, const char *dir, char said[1 << 14]) {
    shell(dir, row->how);
    const char *before = listing(dir);
    program_result r = program_in(dir, row->command);
    size_t len = strlen(r.err);
    memcpy(said, r.err, sizeof r.err);
    if (r.code != 2) return "its exit code is not 2";
    if (*r.out) return "it wrote to standard output";
    if (strcmp(before, listing(dir)) != 0) return "files changed";
    if (strncmp(r.err, "postnas: error: ", 16) != 0 || r.err[len - 1] != '\n') return "this is no error message";
    r.err[len - 1] = said[len - 1] = '\0';
    for (size_t i = 0; i < len - 1; i++)
        if (iscntrl((unsigned char)r.err[i])) return "the message is not one printable line";
    return matches(r.err + 16, row->message) ? NULL : "the message is another";
}

START_TEST(every_row_is_refused_with_its_message) {
    enum { ROWS = sizeof table / sizeof *table };
    char dir[256], script[2048], said[1 << 14];
    int failed = 0;
    strcpy(dir, scratch("row"));
    snprintf(script, sizeof script,
             "mkdir template && cd template && cp -r %s/tests/data/golden/llama_tiny base && rm base/expected*\n"
             "cp -r base hyb && cp -r %s/data/quickstart-base qs\n"
             "sed -i 's|\"llama\"|\"jet_nemotron\"|; s|\"rope_scaling\": null|\"layer_types\": [\"jet\", \"attn\", "
             "\"jet\"], \"efficient_attention_config\": {\"jet\": {\"num_heads\": 2, \"expand_v\": 2}}|' "
             "hyb/config.json\n"
             "sed 's|data/quickstart-base|qs|; s|runs/quickstart|run|' %s/configs/quickstart.yaml > good.yaml\n"
             "%s data --quiet --tokenizer qs --out set good.yaml > /dev/null\n"
             "%s config search --print --config good.yaml > /dev/null",
             POSTNAS_SOURCE_DIR, POSTNAS_SOURCE_DIR, POSTNAS_SOURCE_DIR, POSTNAS_BIN, POSTNAS_BIN);
    shell(scratch("."), script);
    for (int i = 0; i < ROWS; i++) {
        shell(scratch("."), "rm -rf row && cp -r template row");
        const char *wrong = try_row(&table[i], dir, said);
        if (!wrong) continue;
        failed++;
        printf("row %d, %s: %s\n    expected: %s\n    said:     %s\n", i, table[i].what, wrong, table[i].message, said);
    }
    fflush(stdout);
    ck_assert_msg(failed == 0, "%d of %d rows failed", failed, ROWS);
}
END_TEST

TEST_MAIN("bad_input", every_row_is_refused_with_its_message)
