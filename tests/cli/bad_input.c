/* Every kind of bad input in one table: what is broken, how it comes about, the command that meets it, and what the
 * program says. For each row the exit code is 2, the message one printable line, standard output empty, and no file
 * that was there has changed or gone, and none has come.
 *
 * A row's shell runs in a fresh copy of bad_fixture.h's template, with its helpers. In a message "..." stands for
 * anything. */
#include "bad_fixture.h"

typedef struct bad {
    const char *what, *how, *command, *message;
} bad;

#define IN_M          " > model.safetensors && mkdir m && mv base/config.json model.safetensors m"
#define ST(header, n) "st '" header "' " #n IN_M
#define ONE(dtype, shape, begin, end)                                                                                  \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}}"
#define CONFIG(key, value) "to " key " '" value "' base/config.json"
#define HYBRID(key, value) "to " key " '" value "' hyb/config.json"
#define LAYERS(list)       "sed -i 's|\"layer_types\": \\[[^]]*\\]|\"layer_types\": " list "|' hyb/config.json"
#define INDEX(map)         "printf %s '" map "' > base/model.safetensors.index.json"
#define YAML(line)         "printf -- '" line "\n' >> good.yaml"
#define TABLE(entries)                                                                                                 \
    "printf '{\"format\": \"postnas latency table\", \"version\": 1, \"entries\": %s' '" entries "' > t"
#define BASE   "import base out"
#define HYB    "import hyb out"
#define M      "import m out"
#define GGUF   "import m.gguf out"
#define SEARCH "search --config good.yaml --quiet"
#define BEGUN                                                                                                          \
    "mkdir -p run/state; touch run/lock; " POSTNAS_BIN " config search --print --config good.yaml > run/config.yaml\n"
#define STAGES(rest) YAML("stages: [placement, block, shape]\nblock: {tokens: 2048, batch_tokens: 2048, " rest)
#define SHAPES(list)                                                                                                   \
    STAGES("candidates: [{type: jet}]}\nshape: {tokens: 2048, batch_tokens: 2048, candidates: " list "}")
#define SELECT(list) SEARCH " --set 'compare.selectors=[" list "]' "
#define SPEEDS(text) "echo {} > r-result.json; echo '" text "' > r-speed.json"
#define REPORT       "report r-result.json page.html"
#define DATA         "data --quiet --tokenizer qs --out out --format "

static const bad table[] = {
    /* ---- safetensors ---- */
    { "no bytes", ": " IN_M, M, "m/model.safetensors: 0 bytes are too few for a safetensors file" },
    { "fewer bytes than a header's length", "printf 1234567" IN_M, M,
      "m/model.safetensors: 7 bytes are too few for a safetensors file" },
    { "header longer than the file", "{ le 8 100; printf '{}'; }" IN_M, M,
      "m/model.safetensors: a header of 100 bytes does not fit the file's 10; is it cut short?" },
    { "header length beyond the format", "{ le 8 -1; printf '{}'; }" IN_M, M,
      "m/model.safetensors: a header of 18446744073709551615 bytes is beyond the format's limit of 100000000; is this "
      "a safetensors file?" },
    { "header is no JSON", ST("hello", 0), M,
      "m/model.safetensors:1:5: not valid JSON: '[' or '{' expected near 'hello'" },
    { "header is a list", ST("[]", 0), M, "m/model.safetensors: the header is not a JSON object" },
    { "NUL byte in the header", "{ le 8 8; printf '{\"a\\0\":1}'; }" IN_M, M,
      "m/model.safetensors:1:3: not valid JSON: control character 0x0 near '\"a'" },
    { "tensor named twice", ST("{\"a\":{},\"a\":{}}", 0), M,
      "m/model.safetensors:1:11: not valid JSON: duplicate object key near '\"a\"'" },
    { "data cut short", ST(ONE("\"F32\"", "[4]", 0, 16), 15), M,
      "m/model.safetensors: tensor a: data_offsets [0, 16] lie outside the file's 15 bytes of data; is it cut short?" },
    { "shard cut short", "truncate -s -1 base/model-00002-of-00002.safetensors", BASE,
      "base/model-00002-of-00002.safetensors: tensor model.norm.weight: data_offsets [276960, 277200] lie outside the "
      "file's 277199 bytes of data; is it cut short?" },
    { "bytes after the last tensor", ST(ONE("\"F32\"", "[4]", 0, 16), 17), M,
      "m/model.safetensors: 1 bytes after the last tensor belong to none" },
    { "gap before a tensor", ST(ONE("\"F32\"", "[3]", 4, 16), 16), M,
      "m/model.safetensors: tensor a leaves a gap before it at byte 4 of the data" },
    { "tensors overlap",
      ST("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12),
      M, "m/model.safetensors: tensor b overlaps another tensor at byte 4 of the data" },
    { "offsets backwards", ST(ONE("\"F32\"", "[1]", 8, 4), 8), M,
      "m/model.safetensors: tensor a: data_offsets [8, 4] lie outside the file's 8 bytes of data; is it cut short?" },
    { "offsets negative", ST(ONE("\"F32\"", "[1]", -4, 0), 8), M,
      "m/model.safetensors: tensor a: data_offsets [-4, 0] lie outside the file's 8 bytes of data; is it cut short?" },
    { "offsets that are no integers", ST(ONE("\"F32\"", "[1]", 0.0, 4.0), 8), M,
      "m/model.safetensors: tensor a: data_offsets is not a pair of integers" },
    { "size unlike shape and type", ST(ONE("\"F32\"", "[3]", 0, 16), 16), M,
      "m/model.safetensors: tensor a: shape [3] of F32 takes 12 bytes, its data_offsets span 16" },
    { "size of no whole number of bytes", ST(ONE("\"F4\"", "[3]", 0, 2), 2), M,
      "m/model.safetensors: tensor a: shape [3] of F4 takes 12 bits, which is no whole number of bytes" },
    { "shape overflows", ST(ONE("\"F32\"", "[4294967296, 4294967296]", 0, 4), 4), M,
      "m/model.safetensors: tensor a: its shape overflows 64 bits" },
    { "size overflows", ST(ONE("\"F32\"", "[4611686018427387904]", 0, 4), 4), M,
      "m/model.safetensors: tensor a: its size overflows 64 bits" },
    { "dimension negative", ST(ONE("\"F32\"", "[-1]", 0, 4), 4), M,
      "m/model.safetensors: tensor a: dimension 0 of its shape is not a count" },
    { "dimension beyond 64 bits", ST(ONE("\"F32\"", "[99999999999999999999]", 0, 4), 4), M,
      "m/model.safetensors:1:49: not valid JSON: too big integer near '99999999999999999999'" },
    { "shape is no list", ST(ONE("\"F32\"", "4", 0, 16), 16), M, "m/model.safetensors: tensor a: shape is not a list" },
    { "too many dimensions", ST(ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", 0, 4), 4), M,
      "m/model.safetensors: tensor a has 9 dimensions; at most 8 are possible" },
    { "type is no text", ST(ONE("7", "[4]", 0, 16), 16), M, "m/model.safetensors: tensor a: dtype is not a string" },
    { "type unknown, where a weight is expected",
      ST("{\"model.embed_tokens.weight\":{\"dtype\":\"X9\",\"shape\":[384,60],\"data_offsets\":[0,0]}}", 0), M,
      "m: tensor model.embed_tokens.weight is of type X9, whose values postnas cannot read" },
    { "tensor of another model", ST(ONE("\"F32\"", "[4]", 0, 16), 16), M,
      "m: there is no tensor model.embed_tokens.weight in it" },
    { "control characters in a name",
      ST("{\"a\\u001b[2J\\n\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,8]}}", 8), M,
      "m/model.safetensors: tensor a?[2J?: shape [4] of F32 takes 16 bytes, its data_offsets span 8" },
    { "metadata that is no text", ST("{\"__metadata__\":{\"format\":1}}", 0), M,
      "m/model.safetensors: __metadata__ key format is not a string" },
    { "a directory in place of the file", "mkdir -p m/model.safetensors && mv base/config.json m", M,
      "m/model.safetensors: not a regular file" },

    /* ---- the index ---- */
    { "index is no JSON", INDEX("{"), BASE,
      "base/model.safetensors.index.json:1:1: not valid JSON: string or '}' expected near end of file" },
    { "index without weight_map", INDEX("{}"), BASE,
      "base/model.safetensors.index.json: weight_map is missing or not an object" },
    { "index names a file that is missing", INDEX("{\"weight_map\":{\"a\":\"lost.safetensors\"}}"), BASE,
      "base/lost.safetensors: No such file or directory" },
    { "index names a file above", INDEX("{\"weight_map\":{\"a\":\"../base/model-00001-of-00002.safetensors\"}}"), BASE,
      "base/model.safetensors.index.json: weight_map names the file '../base/model-00001-of-00002.safetensors'; only "
      "files beside the index are read" },
    { "index names an absolute path", INDEX("{\"weight_map\":{\"a\":\"/etc/passwd\"}}"), BASE,
      "base/model.safetensors.index.json: weight_map names the file '/etc/passwd'; only files beside the index are "
      "read" },
    { "index names its own directory", INDEX("{\"weight_map\":{\"a\":\"..\"}}"), BASE,
      "base/model.safetensors.index.json: weight_map names the file '..'; only files beside the index are read" },
    { "index names no text", INDEX("{\"weight_map\":{\"a\":1}}"), BASE,
      "base/model.safetensors.index.json: weight_map: the file of a is not a string" },
    { "index names a FIFO", "mkfifo base/f; " INDEX("{\"weight_map\":{\"a\":\"f\"}}"), BASE,
      "base/f: not a regular file" },
    { "index names a tensor its file lacks", INDEX("{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}"),
      BASE,
      "base/model.safetensors.index.json: weight_map says that a is in model-00001-of-00002.safetensors, which has no "
      "such tensor" },

    /* ---- config.json ---- */
    { "config missing", "rm base/config.json", BASE, "base/config.json: cannot open: No such file or directory" },
    { "config empty", ": > base/config.json", BASE,
      "base/config.json:1:1: not valid JSON: '[' or '{' expected near end of file" },
    { "config is no JSON", "printf '{\"a\": 1,}' > base/config.json", BASE,
      "base/config.json:1:9: not valid JSON: string or '}' expected near '}'" },
    { "config of broken UTF-8", "printf '{\"\\377\": 1}' > base/config.json", BASE,
      "base/config.json:1:2: not valid JSON: unable to decode byte 0xff near '\"'" },
    { "config nested deeply",
      "{ printf '{\"a\": '; z 100 | tr '\\0' '['; z 100 | tr '\\0' ']'; printf '}'; } > "
      "base/config.json",
      BASE, "base/config.json: nested deeper than 64 levels" },
    { "config too large", "z 17000000 > base/config.json", BASE,
      "base/config.json: larger than the 16777216 bytes such a file may have" },
    { "key twice", CONFIG("hidden_size", "60, \"hidden_size\": 61"), BASE,
      "base/config.json:6:33: not valid JSON: duplicate object key near '\"hidden_size\"'" },
    { "key missing", "sed -i /vocab_size/d base/config.json", BASE,
      "base/config.json: vocab_size is missing; it must be a whole number in 1 .. 2147483647" },
    { "model type unknown", CONFIG("model_type", "\"mamba\""), BASE,
      "base/config.json: model_type is \"mamba\"; qwen2, llama, jet_nemotron and fla's retnet, gla, delta_net and "
      "gated_deltanet are read" },
    { "number as text", CONFIG("hidden_size", "\"60\""), BASE,
      "base/config.json: hidden_size must be a whole number in 1 .. 2147483647, but is the text \"60\"" },
    { "number with a fraction", CONFIG("num_hidden_layers", "3.0"), BASE,
      "base/config.json: num_hidden_layers must be a whole number in 1 .. 128, but is 3.0" },
    { "number negative", CONFIG("intermediate_size", "-1"), BASE,
      "base/config.json: intermediate_size must be a whole number in 1 .. 2147483647, but is -1" },
    { "number beyond 64 bits", CONFIG("vocab_size", "1000000000000000000000"), BASE,
      "base/config.json:12:37: not valid JSON: too big integer" },
    { "layers absurd", CONFIG("num_hidden_layers", "1000000"), BASE,
      "base/config.json: num_hidden_layers must be a whole number in 1 .. 128, but is 1000000" },
    { "width absurd", CONFIG("hidden_size", "2147483580"), BASE,
      "base/config.json: model: hidden_size is 2147483580; it must lie in 1 .. 1048576" },
    { "vocabulary absurd", CONFIG("vocab_size", "2000000000"), BASE,
      "base/config.json: model: vocab_size is 2000000000; it must lie in 1 .. 16777216" },
    { "MLP wider than the file has it", CONFIG("intermediate_size", "1048576"), BASE,
      "base: tensor model.layers.0.mlp.gate_proj.weight has shape [152, 60], its config says [1048576, 60]" },
    { "heads that do not share keys evenly", CONFIG("num_key_value_heads", "2"), BASE,
      "base/config.json: model: num_attention_heads 3 is not a multiple of num_key_value_heads 2" },
    { "no heads", CONFIG("num_attention_heads", "0"), BASE,
      "base/config.json: num_attention_heads must be a whole number in 1 .. 2147483647, but is 0" },
    { "head of odd width", CONFIG("head_dim", "19"), BASE,
      "base/config.json: model: head_dim 19 is odd; rotary positions pair its channels" },
    { "heads of another width than the file's", CONFIG("head_dim", "40"), BASE,
      "base: tensor model.layers.0.self_attn.q_proj.weight has shape [60, 60], its config says [120, 60]" },
    { "epsilon zero", CONFIG("rms_norm_eps", "0"), BASE,
      "base/config.json: model: rms_norm_eps 0 must lie between 0 and 1" },
    { "theta twice, two values", CONFIG("rope_scaling", "null, \"rope_parameters\": {\"rope_theta\": 5.0}"), BASE,
      "base/config.json: rope_theta is 100000, but rope_parameters.rope_theta is 5" },
    { "positions scaled", CONFIG("rope_scaling", "{\"rope_type\": \"yarn\"}"), BASE,
      "base/config.json: rope_scaling.rope_type is \"yarn\"; only unscaled rotary positions are supported" },
    { "other activation", CONFIG("hidden_act", "\"gelu\""), BASE,
      "base/config.json: hidden_act is \"gelu\"; only silu is supported" },
    { "more layers than the file has", CONFIG("num_hidden_layers", "4"), BASE,
      "base: there is no tensor model.layers.3.input_layernorm.weight in it" },
    { "fewer layers than the file has", CONFIG("num_hidden_layers", "2"), BASE,
      "base: tensor model.layers.2.input_layernorm.weight is in it, but the model its config describes has no place "
      "for it" },
    { "head asked for that is not there", CONFIG("tie_word_embeddings", "false"), BASE,
      "base: there is no tensor lm_head.weight in it" },
    { "end of text outside the vocabulary", CONFIG("eos_token_id", "384"), BASE,
      "base/config.json: eos_token_id must be a whole number in -1 .. 383, but is 384" },
    { "layer types fewer than layers", LAYERS("[\"attn\"]"), HYB,
      "hyb/config.json: layer_types has 1 entries for num_hidden_layers 3" },
    { "layer type unknown", LAYERS("[\"jet\", \"atn\", \"jet\"]"), HYB,
      "hyb/config.json: layer_types names \"atn\"; known are ..." },
    { "layer type without settings", "sed -i s/efficient_attention_config/efficient/ hyb/config.json", HYB,
      "hyb/config.json: layer_types names \"jet\", but efficient_attention_config has no settings for it" },
    { "block setting unknown", HYBRID("expand_v", "2, \"expand_k\": 1"), HYB,
      "hyb/config.json: efficient_attention_config.jet: expand_k has no counterpart in postnas; did you mean "
      "expand_v?" },
    { "block setting mistyped", HYBRID("num_heads", "[2]"), HYB,
      "hyb/config.json: efficient_attention_config.jet: num_heads is of the wrong JSON type; it is: heads H; 0: as "
      "many as the model's attention has" },
    { "block setting absurd", HYBRID("num_heads", "1000000"), HYB,
      "hyb/config.json: efficient_attention_config.jet: num_heads is 1000000; it must lie in 0 .. 1024" },
    { "block settings that contradict each other", HYBRID("expand_v", "2.03"), HYB,
      "hyb/config.json: jet: head_dim 20 times expand_v 2.03 is 40.6, which is no whole value dimension; choose an "
      "expand_v that makes it one" },
    { "block larger than the file has it",
      "to num_heads 1024 hyb/config.json; to head_dim 20 hyb/config.json; " HYBRID("expand_v", "16"), HYB,
      "hyb: tensor model.layers.0.self_attn.q_proj.weight has shape [60, 60], its config says [20480, 60]" },

    /* ---- GGUF ---- */
    { "not GGUF", "printf 'GGML and more than 24 bytes' > m.gguf", GGUF, "m.gguf: this is not a GGUF file" },
    { "cut inside the frame", "gguf 0 0 | head -c 23 > m.gguf", GGUF, "m.gguf: this is not a GGUF file" },
    { "version unknown", "{ printf GGUF; le 4 9; z 16; } > m.gguf", GGUF,
      "m.gguf: GGUF version 9; versions 2 and 3 are read, older files can be converted by llama.cpp's tools" },
    { "big-endian", "{ printf GGUF; printf '\\0\\0\\0\\003'; z 16; } > m.gguf", GGUF,
      "m.gguf: a big-endian GGUF file; only little-endian ones are read" },
    { "more keys than bytes", "gguf 0 -1 > m.gguf", GGUF,
      "m.gguf: it claims 18446744073709551615 keys, more than fit in it" },
    { "more tensors than bytes", "gguf 1000000000000 0 > m.gguf", GGUF,
      "m.gguf: it claims 1000000000000 tensors, more than fit in it" },
    { "key's name longer than the file", "{ gguf 0 1; le 8 -1; z 64; } > m.gguf", GGUF,
      "m.gguf: a key at byte 32 reaches past the end of the file; is it cut short?" },
    { "key's type unknown", "{ gguf 0 1; key k 99; z 64; } > m.gguf", GGUF,
      "m.gguf: key k has a value of the unknown type 99" },
    { "key twice", "{ gguf 0 2; key k 0; le 1 1; key k 0; le 1 1; } > m.gguf", GGUF, "m.gguf: key k is there twice" },
    { "text longer than the file", "{ gguf 0 1; key k 8; le 8 -9; z 64; } > m.gguf", GGUF,
      "m.gguf: key k at byte 45 reaches past the end of the file; is it cut short?" },
    { "list longer than the file", "{ gguf 0 1; key k 9; le 4 5; le 8 4611686018427387904; z 64; } > m.gguf", GGUF,
      "m.gguf: key k claims 4611686018427387904 values" },
    { "list whose size overflows", "{ gguf 0 1; key k 9; le 4 10; le 8 -1; z 64; } > m.gguf", GGUF,
      "m.gguf: key k claims 18446744073709551615 values" },
    { "lists in lists in lists",
      "{ gguf 0 1; key k 9; for i in 1 2 3 4 5 6 7 8 9; do le 4 9; le 8 1; done; z 64; } > "
      "m.gguf",
      GGUF, "m.gguf: key k nests arrays more than 8 deep" },
    { "bool of 2", "{ gguf 0 1; key k 7; le 1 2; z 64; } > m.gguf", GGUF,
      "m.gguf: key k holds a bool that is neither 0 nor 1" },
    { "alignment of 3", "{ gguf 0 1; key general.alignment 4; le 4 3; z 64; } > m.gguf", GGUF,
      "m.gguf: general.alignment is 3, not a power of two" },
    { "tensor of 5 dimensions", "{ gguf 1 0; tensor t 0 0 1 1 1 1 1; z 64; } > m.gguf", GGUF,
      "m.gguf: tensor t has 5 dimensions; at most 4 are possible" },
    { "tensor whose shape overflows", "{ gguf 1 0; tensor t 0 0 4294967296 4294967296; z 64; } > m.gguf", GGUF,
      "m.gguf: tensor t: its shape overflows 64 bits" },
    { "rows of no whole blocks", "{ gguf 1 0; tensor t 2 0 33; z 64; } > m.gguf", GGUF,
      "m.gguf: tensor t: rows of 33 values are not made of Q4_0 blocks of 32" },
    { "tensor outside the file", "{ gguf 1 0; tensor t 0 32 16; z 64; } > m.gguf", GGUF,
      "m.gguf: tensor t: 64 bytes at offset 32 lie outside the file's 57 bytes of data; is it cut short?" },
    { "offset beyond everything", "{ gguf 1 0; tensor t 0 -32 1; z 64; } > m.gguf", GGUF,
      "m.gguf: tensor t: 4 bytes at offset 18446744073709551584 lie outside the file's 57 bytes of data; is it cut "
      "short?" },
    { "offset misaligned", "{ gguf 1 0; tensor t 0 4 1; z 64; } > m.gguf", GGUF,
      "m.gguf: tensor t: offset 4 is not a multiple of the alignment 32" },
    { "tensors overlap", "{ gguf 2 0; tensor t 0 0 16; tensor u 0 32 16; z 128; } > m.gguf", GGUF,
      "m.gguf: tensors t and u overlap" },
    { "tensor twice", "{ gguf 2 0; tensor t 0 0 1; tensor t 0 32 1; z 128; } > m.gguf", GGUF,
      "m.gguf: tensor t is there twice" },
    { "no architecture", "gguf 0 0 > m.gguf", GGUF, "m.gguf: there is no key general.architecture in its metadata" },
    { "architecture unknown", "{ gguf 0 1; key general.architecture 8; s mamba; } > m.gguf", GGUF,
      "m.gguf: general.architecture is \"mamba\"; llama and qwen2 are read" },
    { "size missing", "{ gguf 0 1; key general.architecture 8; s llama; } > m.gguf", GGUF,
      "m.gguf: there is no key llama.block_count in its metadata" },
    { "size mistyped", "{ gguf 0 2; key general.architecture 8; s llama; key llama.block_count 6; z 4; } > m.gguf",
      GGUF, "m.gguf: key llama.block_count is of type float32; an integer is needed" },

    /* ---- the report ---- */
    { "speeds are no JSON", SPEEDS("{"), REPORT,
      "r-speed.json:2:1: not valid JSON: string or '}' expected near end of file" },
    { "speeds are a list", SPEEDS("[]"), REPORT,
      "r-speed.json: not a JSON object; put a search's speed.json there, or remove it" },
    { "speeds are a directory", "echo {} > r-result.json; mkdir r-speed.json", REPORT,
      "r-speed.json: cannot read: Is a directory" },

    /* ---- YAML ---- */
    { "configuration missing", ":", "search --config lost.yaml", "lost.yaml: cannot open: No such file or directory" },
    { "configuration is a directory", ":", "search --config base", "base: cannot read: Is a directory" },
    { "no YAML", YAML("a: [1, 2"), SEARCH, "good.yaml:44: not valid YAML: did not find expected ',' or ']'" },
    { "tabs", YAML("x:\n\t- 1"), SEARCH, "good.yaml:44: not valid YAML: found character that cannot start any token" },
    { "broken UTF-8", YAML("note: caf\\351"), SEARCH, "good.yaml:43: not valid YAML: incomplete UTF-8 octet sequence" },
    { "NUL byte", YAML("note: a\\0b"), SEARCH, "good.yaml:43: not valid YAML: control characters are not allowed" },
    { "key unknown, top", YAML("modle: qs"), SEARCH,
      "good.yaml:43: unknown key modle; did you mean model? Known keys: model, output, seed, sequence_length, dtype, "
      "mixture, supernet, search, stages, block, shape, distill, compare, heldout, latency, device, precision" },
    { "a device that there is not", ":", SEARCH " --device gpu",
      "--set: top level: device is \"gpu\"; did you mean cpu? it must be one of: cpu, cuda" },
    { "BF16 on the CPU", YAML("precision: bf16"), SEARCH,
      "good.yaml:43: precision: bf16 needs device: cuda; the CPU computes in f32" },
    { "BF16 on the CPU, by option", ":", "generate base --prompt x --precision bf16",
      "postnas generate: bf16 needs device: cuda; the CPU computes in f32" },
    { "another device for a run's scores", ":", "search --rerank run --device cuda",
      "postnas search: --rerank computes as the run did; leave out --device and --precision" },
    { "key unknown, in a section", "sed -i s/full_attention/full_atention/ good.yaml", SEARCH,
      "good.yaml:27: unknown key search.limits.full_atention; did you mean full_attention? Known keys: full_attention, "
      "swa, none" },
    { "key unknown, by --set", ":", SEARCH " --set search.beam.widht=4",
      "--set: unknown key search.beam.widht; did you mean width? Known keys: width, expand, order" },
    { "key twice", YAML("seed: 2"), SEARCH, "good.yaml:43: key seed stands twice; remove one" },
    { "key that is no word", YAML("\"a b\": 1"), SEARCH,
      "good.yaml:43: a key must be a plain word of at most 63 letters, digits, _ and -" },
    { "value of the wrong type", "sed -i 's/^seed: 1/seed: one/' good.yaml", SEARCH,
      "good.yaml:7: top level: seed is \"one\"; it must be a whole number" },
    { "value out of range", ":", SEARCH " --set sequence_length=1",
      "--set: top level: sequence_length is 1; it must lie in 2 .. 1000000000" },
    { "value that is no choice", ":", SEARCH " --set search.strategy=beem",
      "--set: search.strategy: no strategy named beem; see `postnas list searches`" },
    { "start of a block unknown", "sed -i 's/expand_v: 2/expand_v: 2, init: attn/' good.yaml", SEARCH,
      "good.yaml:23: supernet.blocks.0: init is \"attn\"; it must be one of: random, attention" },
    { "rope on odd heads", "sed -i 's/head_dim: 16/head_dim: 15, rope: true/' good.yaml", SEARCH,
      "gated_deltanet: rope turns channels in pairs, but keys have 15 in a head; make it an even number or leave rope "
      "out" },
    { "list in place of a value", ":", SEARCH " --set seed=[1]", "--set: top level: seed must be a single value" },
    { "value in place of a section", "sed -i '/^distill/,$d' good.yaml; " YAML("distill: 3"), SEARCH,
      "good.yaml:33: distill: must be a section with keys of its own" },
    { "value in place of a list", ":", SEARCH " --set mixture=recall", "--set: mixture: must be a list" },
    { "nested deeply", YAML("x: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"), SEARCH,
      "good.yaml:43: nested deeper than 16 levels" },
    { "anchor", YAML("x: &a 1"), SEARCH, "good.yaml:43: anchors and aliases are not supported; write the value out" },
    { "alias", YAML("x: *a"), SEARCH, "good.yaml:43: anchors and aliases are not supported; write the value out" },
    { "tag", YAML("x: !!int 1"), SEARCH,
      "good.yaml:43: tags (\"!\") are not supported; the key decides the type of its value" },
    { "two documents", YAML("---\nx: 1"), SEARCH, "good.yaml: more than one YAML document" },
    { "a list on top", "printf -- '- 1\n' > good.yaml", SEARCH, "good.yaml: the top level must be keys and values" },
    { "1 MiB and more", "z 1100000 | tr '\\0' '#' > good.yaml", SEARCH,
      "good.yaml: larger than the 1048576 bytes such a file may have" },
    { "an empty file", ": > good.yaml", SEARCH, "good.yaml: model: name the directory of the base model" },
    { "--set without a value", ":", SEARCH " --set seed",
      "--set seed: write it as key=value, for example search.beam.width=4" },
    { "block that depends on other layers", "sed -i 's/type: gated_delt.*/type: rwkv7, use_v_first: true }/' good.yaml",
      SEARCH,
      "good.yaml:22: supernet.blocks: rwkv7 with use_v_first depends on other layers, which mode local does not hand "
      "it; use use_v_first: false, or mode: sampled" },
    { "heads that do not divide the width", "sed -i 's/type: gated_delt.*/type: rwkv7, head_dim: 3 }/' good.yaml",
      SEARCH, "rwkv7: hidden size 64 is no whole number of heads of head_dim 3; choose another head_dim" },
    { "skill unknown", "sed -i 's/skill: recall,/skill: recal,/' good.yaml", SEARCH,
      "good.yaml:30: search.tasks.0: no skill named recal; see `postnas list skills`" },
    { "task of the objective missing", "sed -i 's/objective: recall/objective: recal/' good.yaml", SEARCH,
      "good.yaml:26: search.objective: no task is named recal" },
    { "more attention layers than layers", ":", SEARCH " --set search.limits.full_attention=9",
      "search.limits: 9 full_attention do not fit 8 layers; lower it" },
    { "more layers limited than there are", ":",
      SEARCH " --set search.limits.full_attention=5 --set search.limits.swa=4",
      "search.limits: 5 full_attention and 4 swa do not fit 8 layers; lower one of them" },
    { "candidate that no limit allows", ":", SEARCH " --set supernet.swa.window_size=32",
      "--set: supernet.swa: no layer may be a sliding window; set search.limits.swa, or remove the section" },

    /* ---- stages ---- */
    { "stages without placement", ":", SEARCH " --set 'stages=[block]'",
      "--set: stages: a search starts with placement, which the other stages need; write stages: [placement, ...]" },
    { "no stages", ":", SEARCH " --set 'stages=[]'",
      "--set: stages: a search starts with placement, which the other stages need; write stages: [placement, ...]" },
    { "stages out of order", ":", SEARCH " --set 'stages=[placement, shape, block]'",
      "--set: stages: block cannot follow shape; the order is placement, block, shape" },
    { "stage unknown", ":", SEARCH " --set 'stages=[placement, type]'",
      "--set: stages: no stage type; there are placement, block and shape" },
    { "stage without candidates", ":", SEARCH " --set 'stages=[placement, block]'",
      "good.yaml: block.candidates: the stage block compares the blocks listed there; list some, or leave the stage "
      "out of `stages`" },
    { "candidate unknown", STAGES("candidates: [{type: mambo}]}"), SEARCH,
      "good.yaml:44: block.candidates.0: type is \"mambo\"; it must be a linear block, see `postnas list blocks`" },
    { "candidate that is no linear block", STAGES("candidates: [{type: swa}]}"), SEARCH,
      "good.yaml:44: block.candidates.0: type is \"swa\"; it must be a linear block, see `postnas list blocks`" },
    { "candidate's option unknown", STAGES("candidates: [{type: jet, heads: 2}]}"),
      SEARCH " --set 'stages=[placement]'",
      "good.yaml:44: unknown key block.candidates.0.heads; known keys: type, init, state, num_heads, ..." },
    { "objective of a stage names an unknown task", STAGES("objective: mmlu.accuracy, candidates: [{type: jet}]}"),
      SEARCH, "good.yaml:44: block.objective: no task is named mmlu" },
    { "block that does not divide", STAGES("candidates: [{type: jet, head_dim: 16, expand_v: 0.7}]}"),
      SEARCH " --set 'stages=[placement, block]'",
      "good.yaml:44: block.candidates.0: jet head_dim 16 expand_v 0.7: jet: ..." },
    { "block beyond what kernels take", STAGES("candidates: [{type: deltanet, num_heads: 1, expand_k: 8}]}"),
      SEARCH " --set 'stages=[placement, block]'",
      "good.yaml:44: block.candidates.0: deltanet num_heads 1 expand_k 8: deltanet: expand_k 8 makes keys of 512 "
      "channels per head; at most 256 are possible: choose a smaller expand_k or a larger num_heads" },
    { "candidate that needs other layers", STAGES("candidates: [{type: rwkv7, use_v_first: true}]}"),
      SEARCH " --set 'stages=[placement, block]'",
      "good.yaml:44: block.candidates.0: rwkv7 with use_v_first depends on other layers, which mode local does not "
      "hand "
      "it; use use_v_first: false, or mode: sampled" },
    { "shapes of a block that is no candidate", SHAPES("[{type: gla, num_heads: 2}]"), SEARCH,
      "good.yaml:45: shape.candidates.0: shapes of gla, which block.candidates does not list; remove the entry, or "
      "list the block there" },
    { "candidate without shapes",
      STAGES("candidates: [{type: jet}, {type: gla}]}\nshape: {tokens: 2048, batch_tokens: 2048, candidates: [{type: "
             "gla}]}"),
      SEARCH, "good.yaml:45: shape.candidates: stage block may choose jet, of which there are no shapes; list some" },
    { "shapes under a budget that none meets", SHAPES("[{type: jet, num_heads: [1, 2], state: 7}]"), SEARCH,
      "good.yaml:45: shape.candidates.0: no combination has a state of 7 values; change the lists or `state`" },
    { "more shapes than can be compared",
      SHAPES("[{type: jet, num_heads: [1, 2, 4, 8, 16], head_dim: [8, 16, 24], conv_size: [2, 3, 4]}]"), SEARCH,
      "good.yaml:45: shape.candidates.0: more than 40 shapes in all; shorten its lists" },
    { "mixture and shape",
      STAGES("mix: {width: 2}, candidates: [{type: jet}]}\nshape: {tokens: 2048, batch_tokens: 2048, candidates: "
             "[{type: jet}]}"),
      SEARCH, "good.yaml:44: block.mix: a mixture of types has no one shape; leave out mix, or shape from `stages`" },
    { "mixture of the fastest", STAGES("choose: fastest, mix: {width: 2}, candidates: [{type: jet}]}"),
      SEARCH " --set 'stages=[placement, block]'",
      "good.yaml:44: block.mix: a mixture of types is chosen by its weighed objective; use choose: weighed, or leave "
      "mix out" },
    { "budget of a stage for less than one step", STAGES("candidates: [{type: jet}]}"),
      SEARCH " --set 'stages=[placement, block]' --set block.tokens=100",
      "good.yaml:44: block: tokens 100 is less than one step of batch_tokens 2048; raise tokens or lower "
      "batch_tokens" },
    { "base of a run changed",
      BEGUN "printf '{\"base\": \"0\", \"tokenizer\": \"0\", \"data\": \"0\"}' > run/state/inputs.json", SEARCH,
      "run: this run was begun with another base model than qs has now; restore it, or choose another output" },
    { "inputs of a run are no JSON", BEGUN "echo '{' > run/state/inputs.json", SEARCH,
      "run/state/inputs.json:2:1: not valid JSON: string or '}' expected near end of file" },

    /* ---- the comparison of selectors ---- */
    { "selector unknown", ":", SELECT("beam, kl_gided"),
      "--set: compare.selectors: no strategy named kl_gided; see `postnas list searches`" },
    { "selector twice", ":", SELECT("beam, beam"), "--set: compare.selectors: names beam twice" },
    { "layers for no selector", ":", SEARCH " --set compare.full_attention=[1]",
      "--set: compare.full_attention: no selector places these layers; name some in compare.selectors" },
    { "layers that do not rise", ":", SELECT("beam") "--set compare.full_attention=[1,2,2]",
      "--set: compare.full_attention: 2 does not rise above 2; give each number of layers once, in rising order" },
    { "more layers to compare than layers", ":", SELECT("beam") "--set compare.full_attention=[1,9]",
      "--set: compare.full_attention: with full_attention 9: search.limits: 9 full_attention do not fit 8 layers; "
      "lower it" },
    { "gates of a super-network without", ":", SELECT("uniform, gates"),
      "--set: compare.selectors: with full_attention 2: strategy gates needs the gates of a super-network; train one "
      "with supernet.mode: gated, or search without gates" },
    { "exhaustive where the space is too large", ":",
      SELECT("exhaustive") "--set compare.full_attention=[2,3] --set compare.exhaustive=false "
                           "--set search.exhaustive.max_paths=28",
      "--set: compare.selectors: with full_attention 3: exhaustive search has 56 paths, more than max_paths 28; use "
      "beam (and compare.exhaustive: false), or raise search.exhaustive.max_paths" },
    { "kl_guided without a kl task", ":", SELECT("kl_guided"),
      "--set: compare.selectors: with full_attention 2: strategy kl_guided needs a task of kind kl; add one to "
      "search.tasks" },
    { "recall_ratio without choices", "sed -i /multiple_choice/d good.yaml", SELECT("recall_ratio"),
      "--set: compare.selectors: with full_attention 2: strategy recall_ratio needs a task of kind multiple_choice; "
      "add one "
      "to search.tasks" },
    { "task of another kind", ":", SEARCH " --set search.strategy=recall_ratio --set search.recall_ratio.recall=text",
      "search.recall_ratio.recall: task text is of kind perplexity; name one of kind recall" },
    { "task unknown", ":", SELECT("recall_ratio") "--set search.recall_ratio.commonsense=fact",
      "--set: compare.selectors: with full_attention 2: search.recall_ratio.commonsense: no task is named fact" },
    { "windows that kl_guided cannot place", ":", SEARCH " --set search.strategy=kl_guided --set search.limits.swa=1",
      "strategy kl_guided places full attention only; set search.limits.swa to 0, or use beam" },

    /* ---- latency tables ---- */
    { "table missing", ":", SEARCH " --set latency.table=lost.json",
      "lost.json: cannot open: No such file or directory" },
    { "table that is another file", ":", SEARCH " --set latency.table=qs/config.json",
      "qs/config.json: format is missing; it must be text" },
    { "table of another program", "printf '{\"format\": \"x\"}' > t", SEARCH " --set latency.table=t",
      "t: format is \"x\", not \"postnas latency table\"; name a run's state/latency.json" },
    { "table cut short", TABLE("[{\"key\": {}"), SEARCH " --set latency.table=t", "t:1:...: not valid JSON: ..." },
    { "time below zero", TABLE("[{\"key\": {}, \"seconds\": -1}]}"), SEARCH " --set latency.table=t",
      "t: entries.0.seconds must be a number in 1e-12 .. 1e+09, but is -1" },
    { "setting of speed out of range", ":", SEARCH " --set latency.batch=0",
      "--set: latency: batch is 0; it must lie in 1 .. 4096" },

    /* ---- tokenizer.json ---- */
    { "tokenizer missing", "rm qs/tokenizer.json", DATA "text good.yaml", "qs: the directory has no tokenizer.json" },
    { "tokenizer is no JSON", "printf '{' > qs/tokenizer.json", DATA "text good.yaml",
      "qs/tokenizer.json:1:1: not valid JSON: string or '}' expected near end of file" },
    { "tokenizer without a vocabulary", "printf '{}' > qs/tokenizer.json", DATA "text good.yaml",
      "qs/tokenizer.json: has no model.vocab: is this a tokenizer.json?" },
    { "tokenizer of another kind", "sed -i 's/\"BPE\"/\"WordPiece\"/' qs/tokenizer.json", DATA "text good.yaml",
      "qs/tokenizer.json: model.type \"WordPiece\" is not supported: BPE is" },
    { "token's id absurd", "sed -i 's/: 255/: 99999999/' qs/tokenizer.json", DATA "text good.yaml",
      "qs/tokenizer.json: the id of token \"ÿ\" is not a number from 0 to 8388607" },
    { "two tokens of one id", "sed -i 's/: 255/: 254/' qs/tokenizer.json", DATA "text good.yaml",
      "qs/tokenizer.json: tokens \"þ\" and \"ÿ\" have the same id 254" },

    /* ---- text and JSONL ---- */
    { "file missing", ":", DATA "text lost.txt", "lost.txt: cannot read the file: No such file or directory" },
    { "a directory", ":", DATA "text base", "base: is a directory; name the files in it" },
    { "nothing but white space", "printf ' \n\n' > t", DATA "paragraphs t",
      "out: the input holds no documents, so there is nothing to write" },
    { "empty file", ": > t", DATA "text t", "out: the input holds no documents, so there is nothing to write" },
    { "broken UTF-8", "printf 'good\nb\\351d\n' > t", DATA "text t",
      "t: not UTF-8 at byte 6 (line 1 and after); convert the file with iconv, or give --repair to replace such bytes "
      "by U+FFFD" },
    { "UTF-16", "printf '\\377\\376a\\0' > t", DATA "text t",
      "t: not UTF-8 at byte 0 (line 1 and after); convert the file with iconv, or give --repair to replace such bytes "
      "by U+FFFD" },
    { "line that is no JSON", "printf '{\"text\": \"a\"}\nnot\n' > t", DATA "jsonl t",
      "t:2: not a line of JSON: '[' or '{' expected near 'not' (column 3)" },
    { "line cut short", "printf '{\"text\": \"a\"}\n{\"text\": \"b' > t", DATA "jsonl t",
      "t:2: not a line of JSON: premature end of input near '\"b' (column 11)" },
    { "line that is no object", "printf '[1]\n' > t", DATA "jsonl t", "t:1: not a JSON object" },
    { "line without the field", "printf '{\"body\": \"a\"}\n' > t", DATA "jsonl t",
      "t:1: no text under \"text\"; name the field with --field" },
    { "field that is no text", "printf '{\"text\": 7}\n' > t", DATA "jsonl t",
      "t:1: no text under \"text\"; name the field with --field" },
    { "NUL byte in a line", "printf '{\"text\": \"a\\0b\"}\n' > t", DATA "jsonl t",
      "t:1: not a line of JSON: control character 0x0 near '\"a' (column 11)" },
    { "half a surrogate pair", "printf '{\"text\": \"\\\\ud800\"}\n' > t", DATA "jsonl t",
      "t:1: not a line of JSON: invalid Unicode '\\uD800' near '\"\\ud800\"' (column 17)" },
    { "line nested deeply", "{ z 5000 | tr '\\0' '['; echo; } > t", DATA "jsonl t",
      "t:1: not a line of JSON: maximum parsing depth reached near '[' (column 2049)" },
    { "line beyond 256 MiB", "{ printf '{\"text\": \"'; z 268435456 | tr '\\0' a; printf '\"}\n'; } > t",
      DATA "jsonl t", "t:1: a document of more than 268435456 bytes; choose another --format, or split the file" },
    { "gzip cut short", "seq 1 9999 | gzip | head -c 999 > t.gz", DATA "text t.gz",
      "t.gz: the gzip file is cut short or damaged after 1501 unpacked bytes" },
    { "gzip damaged", "seq 1 9999 | gzip > t.gz; printf XXXX | dd of=t.gz bs=1 seek=2000 conv=notrunc status=none",
      DATA "text t.gz", "t.gz: the gzip file is cut short or damaged after 0 unpacked bytes" },

    /* ---- token shards ---- */
    { "no set there", "rm -r set/train", "data --check set/train",
      "set/train/manifest.json: cannot read the manifest of the token shards: No such file or directory; make the set "
      "with `postnas data`" },
    { "manifest is no JSON", "printf '{' > set/train/manifest.json", "data --check set/train",
      "set/train/manifest.json:1:1: not valid JSON: string or '}' expected near end of file" },
    { "manifest of another format", "printf '{\"format\": \"x\"}' > set/train/manifest.json", "data --check set/train",
      "set/train/manifest.json: not a manifest of token shards; `postnas data` writes one" },
    { "manifest names a file outside", "sed -i 's|shard-00000|../s|' set/train/manifest.json", "data --check set/train",
      "set/train/manifest.json: shards[0]: the file is \"../s.h5\", expected \"shard-00000.h5\"" },
    { "manifest claims more than the file holds",
      "sed -i 's/\"n_tokens\": [0-9]*/\"n_tokens\": 99999999999/' "
      "set/train/manifest.json",
      "data --check set/train", "set/train/manifest.json: shards[0]: ... bytes cannot hold the tokens it claims" },
    { "shard missing", "rm set/train/shard-00000.h5", "data --check set/train",
      "set/train/shard-00000.h5: a shard that the manifest names is missing: No such file or directory; copy it here "
      "or make the set again with `postnas data`" },
    { "shard cut short", "truncate -s -1 set/train/shard-00000.h5", "data --check set/train",
      "set/train/shard-00000.h5: ... bytes, but the manifest says ...: the shard is cut short or changed; copy it "
      "again or make the set again with `postnas data`" },
    { "shard changed", "printf X | dd of=set/train/shard-00000.h5 bs=1 seek=3000 conv=notrunc status=none",
      "data --check set/train",
      "set/train/shard-00000.h5: changed since it was written: its xxh3-64 is ..., the manifest says ...; copy it "
      "again or make the set again with `postnas data`" },
    { "shards of another vocabulary",
      "sed -i '/tokenizer/{n;s/[0-9a-f]\\{16\\}/0123456789abcdef/}' set/train/manifest.json",
      SEARCH " --set 'mixture=[{shards: [set]}]'",
      "set/train: made with another tokenizer (0123456789abcdef) than the model's (...); make the set again with "
      "`postnas data --tokenizer` and the model's directory" },

    /* ---- where output goes ---- */
    { "output exists", "mkdir out && touch out/mine", BASE,
      "out exists and is not an empty directory; choose another or remove it first" },
    { "output is a file", "touch out", BASE,
      "out exists and is not an empty directory; choose another or remove it first" },
    { "output below a file", ":", "import base good.yaml/out", "good.yaml: cannot make this directory: File exists" },
    { "output where nothing can be made", ":", "import base /proc/out",
      "/proc/out.postnas-partial: cannot make this directory: No such file or directory" },
    { "output's name too long", ":", "import base $(printf %05000d 0)",
      "\"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\" is no "
      "usable directory name" },
    { "run directory of another run", "mkdir run && touch run/mine", SEARCH " --set output=run",
      "run exists and is not an empty directory; choose another or remove it first" },
};

/* Every file there is, with size, time and inode; directories by name only, since what is made aside and removed again
 * touches their times. */
static const char *listing(const char *dir) {
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

/* What is wrong with how the program met this row; NULL: nothing. */
static const char *try_row(const bad *row, const char *dir, program_result *r) {
    char script[4096];
    snprintf(script, sizeof script, "rm -rf row && cp -r template row && cd row\n%s", row->how);
    shell(scratch("."), script);
    const char *before = listing(dir);
    *r = program_in(dir, row->command);
    if (r->code != 2) return "its exit code is not 2";
    if (*r->out) return "it wrote to standard output";
    if (strcmp(before, listing(dir)) != 0) return "files changed";
    return wrong_error(r->err, row->message);
}

/* Rows first, first + step, ...; several tests, so that a slow machine does not meet one test's time limit. */
static void try_rows(int first, int step) {
    static program_result r;
    char dir[256];
    int failed = 0;
    make_template();
    strcpy(dir, scratch("row"));
    for (int i = first; i < (int)(sizeof table / sizeof *table); i += step) {
        const char *wrong = try_row(&table[i], dir, &r);
        if (!wrong) continue;
        failed++;
        printf("row %d, %s: %s\n    expected: %s\n    said:     %s", i, table[i].what, wrong, table[i].message, r.err);
    }
    fflush(stdout);
    ck_assert_msg(failed == 0, "%d rows failed", failed);
}

START_TEST(every_row_is_refused_with_its_message_1) {
    try_rows(0, 3);
}
END_TEST
START_TEST(every_row_is_refused_with_its_message_2) {
    try_rows(1, 3);
}
END_TEST
START_TEST(every_row_is_refused_with_its_message_3) {
    try_rows(2, 3);
}
END_TEST

TEST_MAIN("bad_input", every_row_is_refused_with_its_message_1, every_row_is_refused_with_its_message_2,
          every_row_is_refused_with_its_message_3)
