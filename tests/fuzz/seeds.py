#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets: small valid files of every format, and valid in every way but one.

    tests/fuzz/seeds.py          rewrites tests/fuzz/corpus; the same bytes each time
"""
import json
import pathlib
import random
import struct

here = pathlib.Path(__file__).parent / "corpus"


def put(target, name, data):
    path = here / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


# ---- safetensors ----

def safetensors(header, data):
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


two = {"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 3], 0, 24), "b.weight": entry("BF16", [4], 24, 32)}
put("safetensors", "two", safetensors(two, bytes(range(32))))
put("safetensors", "empty", safetensors("{}  ", b""))
put("safetensors", "short", safetensors(two, bytes(20)))
put("safetensors", "overlap", safetensors({**two, "b.weight": entry("BF16", [4], 20, 28)}, bytes(32)))
every = ["F64", "I64", "I32", "F16", "U8", "BOOL", "F8_E4M3", "F4", "C64"]
bits = {"F64": 64, "I64": 64, "I32": 32, "F16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F4": 4, "C64": 64}
header, at = {}, 0
for t in every:
    header[t] = entry(t, [2, 1], at, at + bits[t] // 4)
    at += bits[t] // 4
put("safetensors", "dtypes", safetensors(header, bytes(at)))
put("safetensors", "scalar", safetensors({"s": entry("F32", [], 0, 4), "none": entry("F32", [0, 9], 4, 4)}, bytes(4)))
put("safetensors", "huge-shape", safetensors({"a": entry("F32", [2**62, 4], 0, 4)}, bytes(4)))
put("safetensors", "huge-header", struct.pack("<Q", 2**63) + b"{}")

# ---- GGUF ----

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s)) + s


def value(kind, v):
    return text(v) if kind == STRING else struct.pack("<" + FORMS[kind], v)


def key(name, kind, v):
    if isinstance(v, list):
        return text(name) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return text(name) + struct.pack("<I", kind) + value(kind, v)


def gguf(keys, tensors, version=3, alignment=32):
    """tensors: (name, dims fastest first, type, bytes)"""
    rows, data = b"", b""
    for name, dims, kind, blob in tensors:
        data += b"\0" * (-len(data) % alignment)
        rows += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        rows += struct.pack("<IQ", kind, len(data))
        data += blob
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + rows
    return head + b"\0" * (-len(head) % alignment) + data


random.seed(1)
put("gguf", "keys", gguf([key("k%d" % k, k, 1) for k in FORMS] + [key("s", STRING, "text"), key("a", U32, [1, 2]),
                         key("l", STRING, ["x", "yz"]), key("b", BOOL, [0, 1]), key("f", F32, 1e-5)], []))
blocks = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 26: (1, 4), 30: (1, 2)}
for kind, (n, size) in blocks.items():
    put("gguf", "type%02d" % kind, gguf([], [("t", [n, 2], kind, random.randbytes(2 * size))]))
put("gguf", "unknown-type", gguf([], [("t", [4], 99, bytes(8))]))
put("gguf", "alignment", gguf([key("general.alignment", U32, 64)], [("t", [3], 0, bytes(12)), ("u", [1], 0, bytes(4))],
                              alignment=64))


def byte_alphabet():
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return {b: chr(b if b in printing else next(rest)) for b in range(256)}


alphabet = byte_alphabet()
words = [alphabet[b] for b in b"Helo 12\n"] + ["He", "ll", "\u0120H"]
merges = ["H e", "l l", "\u0120 H"]


def model(arch, extra=(), heads=2):
    sizes = {"embedding_length": 8, "feed_forward_length": 16, "attention.head_count": heads,
             "attention.head_count_kv": 1, "block_count": 1, "context_length": 64}
    keys = [key("general.architecture", STRING, arch)]
    keys += [key("%s.%s" % (arch, k), U32, v) for k, v in sizes.items()]
    keys += [key(arch + ".attention.layer_norm_rms_epsilon", F32, 1e-5), *extra]
    tensors = [("token_embd.weight", [8, 12]), ("output_norm.weight", [8]), ("blk.0.attn_norm.weight", [8]),
               ("blk.0.ffn_norm.weight", [8]), ("blk.0.attn_q.weight", [8, 8]), ("blk.0.attn_k.weight", [8, 4]),
               ("blk.0.attn_v.weight", [8, 4]), ("blk.0.attn_output.weight", [8, 8]),
               ("blk.0.ffn_gate.weight", [8, 16]), ("blk.0.ffn_up.weight", [8, 16]), ("blk.0.ffn_down.weight", [16, 8])]
    rows = []
    for name, dims in tensors:
        n = dims[0] * (dims[1] if len(dims) > 1 else 1)
        rows.append((name, dims, 1, bytes(2 * n)))
    return gguf(keys, rows)


tokens = [key("tokenizer.ggml.model", STRING, "gpt2"), key("tokenizer.ggml.pre", STRING, "qwen2"),
          key("tokenizer.ggml.tokens", STRING, words + ["<|end|>"]), key("tokenizer.ggml.merges", STRING, merges),
          key("tokenizer.ggml.token_type", I32, [1] * len(words) + [3]), key("tokenizer.ggml.eos_token_id", U32, 11),
          key("tokenizer.ggml.add_bos_token", BOOL, 0)]
put("gguf", "llama", model("llama", tokens))
put("gguf", "qwen2", model("qwen2", [key("qwen2.rope.freq_base", F32, 1e6)]))

# ---- config.json and the index ----

qwen2 = {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-6,
         "rope_theta": 1e4, "rope_scaling": None, "hidden_act": "silu", "tie_word_embeddings": True,
         "eos_token_id": [1, 2], "max_position_embeddings": 256, "use_sliding_window": False, "torch_dtype": "bfloat16"}
llama = {**qwen2, "model_type": "llama", "attention_bias": False, "mlp_bias": False, "head_dim": 16,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "dtype": "float32"}
jet = {"mode": "chunk", "expand_v": 2.0, "num_heads": 2, "head_dim": 16, "norm_eps": "1e-5", "conv_size": 4,
       "dconv_generator_reduction": 8, "dconv_implementation": "triton"}
hybrid = {**qwen2, "model_type": "jet_nemotron", "layer_types": "['jet', 'attn', 'swa', 'jet']",
          "efficient_attention_config": {"jet": jet, "swa": {"window_size": 16}}}
gdn = {"num_heads": 4, "head_dim": 16, "expand_v": 1, "conv_size": 4, "norm_eps": 1e-5}
listed = {**hybrid, "layer_types": ["gdn", "attn", "none", "gdn"],
          "efficient_attention_config": {"gdn": gdn, "none": {}}}
window = {**qwen2, "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2}
typed = {**window, "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]}
golden = here.parents[1] / "data" / "golden"
for name in ["retnet", "gla", "delta_net", "gated_deltanet"]:
    put("hf_config", "fla_" + name, json.dumps(json.loads((golden / ("fla_" + name) / "config.json").read_text())))
for name, c in [("qwen2", qwen2), ("llama", llama), ("hybrid", hybrid), ("listed", listed), ("window", window),
                ("typed", typed), ("absurd", {**qwen2, "hidden_size": 2**31, "vocab_size": 2**40})]:
    put("hf_config", name, json.dumps(c))
put("weights_index", "good", json.dumps({"metadata": {"total_size": 8},
                                         "weight_map": {"a": "m.safetensors", "b": "m.safetensors"}}))
put("weights_index", "outside", json.dumps({"weight_map": {"a": "../m.safetensors"}}))
put("weights_index", "missing", json.dumps({"weight_map": {"a": "n.safetensors", "c": "m.safetensors"}}))
put("weights_index", "itself", json.dumps({"weight_map": {"a": "model.safetensors.index.json"}}))

# ---- YAML ----

search = (here.parents[2] / "configs" / "quickstart.yaml").read_text()
put("yaml_config", "search", search)
put("yaml_config", "set", search.encode() + b"\0search.beam.width=4")
put("yaml_config", "set-list", b"a: [1, 2]\n\0a.1={b: c}")
put("yaml_config", "quotes", 'a: "x\\n\\u00e9"\nb: \'it\'\'s\'\nc: |\n  two\n  lines\nd: ~\ne: []\nf: {}\n')
put("yaml_config", "anchor", "a: &x 1\nb: *x\n")
put("yaml_config", "tag", "a: !!int 1\n")
put("yaml_config", "twice", "a: 1\na: 2\n")
put("yaml_config", "deep", "a: " + "[" * 20 + "]" * 20 + "\n")
put("yaml_config", "flow", "{a: {b: [1, {c: d}]}}\n")
put("yaml_config", "documents", "---\na: 1\n---\nb: 2\n")

# ---- tokenizer.json ----

vocab = {t: i for i, t in enumerate([alphabet[b] for b in range(256)] + ["He", "ll", "\u0120H"])}


def tokenizer(steps, **more):
    model = {"type": "BPE", "vocab": more.pop("vocab", vocab), "merges": more.pop("merges", merges),
             "ignore_merges": False, "dropout": None}
    t = {"version": "1.0", "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
         "decoder": {"type": "ByteLevel"}, "post_processor": None,
         "added_tokens": [{"id": 259, "content": "<|endoftext|>", "special": True, "normalized": False}], "model": model}
    return json.dumps({**t, **more}, ensure_ascii=False, separators=(",", ":"))


byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
few = {alphabet[b]: i for i, b in enumerate(b"Helo 12\n,<>|abc")}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}


small = {"vocab": few, "merges": [], "added_tokens": [{"id": 20, "content": "<|x|>", "special": True}]}
put("tokenizer", "gpt2", tokenizer([{**byte_level, "use_regex": True}]))
put("tokenizer", "small", tokenizer([byte_level], **small))
for name, regex in [("qwen2", "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"),
                    ("classes", "[\\w\\d_-]+|\\W|[[:alpha:]]|\\h|\\v|\\u4e2d|\\x{e9}"),
                    ("look", "(?<=a)b|(?<!c)d|(?>x+)|^a$|\\ba\\b"), ("empty", "a*|(?=b)")]:
    put("tokenizer", name, tokenizer([split(regex), byte_level], **small))
put("tokenizer", "digits", tokenizer([{"type": "Digits", "individual_digits": True}, byte_level],
                                     normalizer={"type": "NFC"}, **small))
put("tokenizer", "added", tokenizer([byte_level], normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]},
                                    post_processor={"type": "TemplateProcessing", "single": [
                                        {"SpecialToken": {"id": "<|x|>"}}, {"Sequence": {"id": "A"}}]},
                                    vocab=few, merges=[["H", "e"]] if "He" in few else [], added_tokens=[
                                        {"id": 20, "content": "<|x|>", "special": True, "lstrip": True, "rstrip": True},
                                        {"id": 21, "content": "e\u0301", "normalized": True, "single_word": True}]))

# ---- manifest.json ----

shard = {"file": "shard-00000.h5", "n_tokens": 100, "n_docs": 3, "n_answers": 2, "n_choices": 4, "n_choice_tokens": 8,
         "n_bytes": 4096, "xxh3_64": "0123456789abcdef"}
manifest = {"format": "postnas-token-shards", "version": 1, "tokenizer": {"xxh3_64": "00112233445566aa", "vocab": 259},
            "source": "text", "split": "train", "seed": "0000000000000001", "token_class": True,
            "skills": ["recall", "copy"], "shards": [shard, {**shard, "file": "shard-00001.h5"}]}
put("manifest", "two", json.dumps(manifest))
put("manifest", "no-skills", json.dumps({**manifest, "skills": [], "token_class": False, "shards": [shard]}))
put("manifest", "outside", json.dumps({**manifest, "shards": [{**shard, "file": "../../etc/passwd"}]}))
put("manifest", "lying", json.dumps({**manifest, "shards": [{**shard, "n_tokens": 2**62, "n_bytes": 2**63 - 1}]}))

# ---- ranks: the frames between them, and where they meet ----

def frame(kind, rank, body, version=1):
    return b"PNr\n" + struct.pack("<BBHII", kind, version, 0, rank, len(body)) + body


hello, welcome, refused, ready, beat, give, answer, failure, bye = range(1, 10)
label = b"checkpoint".ljust(32, b"\0")
beats = frame(beat, 1, struct.pack("<QB", 7, 0) + b"step 7")
gives = frame(give, 1, struct.pack("<Q", 1) + label + b"12345678")
# the first byte says what hears it: 0 rank 0, from a stranger; 1 rank 0, from rank 1; 2 rank 1, from rank 0;
# 255 a stranger that knows the token
put("frames", "stranger", b"\0" + frame(hello, 1, bytes(16) + struct.pack("<I", 3)))
put("frames", "friend", b"\xff" + frame(hello, 1, bytes(16) + struct.pack("<I", 3)) + beats + gives)
put("frames", "too-many", b"\xff" + frame(hello, 1, bytes(16) + struct.pack("<I", 9)))
put("frames", "another", b"\0" + b"GET / HTTP/1.1\r\n\r\n")
put("frames", "rank", b"\1" + beats + gives + beats + frame(bye, 1, b""))
put("frames", "twice", b"\1" + gives + gives)
put("frames", "other-rank", b"\1" + frame(beat, 2, struct.pack("<QB", 7, 0)))
put("frames", "failed", b"\1" + frame(failure, 1, struct.pack("<i", 1) + b"disk\033full"))
put("frames", "no-rank", b"\1" + frame(failure, 1, struct.pack("<i", 77) + b"?"))
put("frames", "short", b"\1" + frame(beat, 1, b"1234") + gives[:9])
put("frames", "long", b"\1" + frame(give, 1, b"")[:12] + struct.pack("<I", 1 << 31))
put("frames", "ready", b"\2" + frame(ready, 0, struct.pack("<I", 0) + struct.pack("<I", 16) + bytes(16) + bytes(4)))
put("frames", "no-addresses", b"\2" + frame(ready, 0, struct.pack("<II", 0, 1 << 30)))
put("frames", "answer", b"\2" + frame(answer, 0, struct.pack("<Q", 1) + bytes(24)) + frame(beat, 0, bytes(9)))

note = "postnas rendezvous 1\ntoken " + "0123456789abcdef" * 2 + "\nat 10.0.0.1 2000\nat ::1 2000\nend\n"
put("rendezvous", "note", note)
put("rendezvous", "cut", note[:60])
put("rendezvous", "port", note.replace("2000", "99999"))
put("rendezvous", "place", "node-1.cluster:20000-20007")
put("rendezvous", "v6", "[fe80::1]:1")
put("rendezvous", "file", "file:/shared/meet")
put("rendezvous", "nodes", "gpu[003-010,12],login")

# ---- run state ----

state = {"format": "postnas-run-state", "version": 2, "step": 12, "fingerprint": "0123456789abcdef",
         "files": [{"n_bytes": 4096, "xxh3_64": "0" * 16}, {"n_bytes": 8192, "xxh3_64": "f" * 16}],
         "arrays": [{"name": "steps", "dtype": "i64", "n": 1, "ranges": [[0, 0, 1, "1" * 16]]},
                    {"name": "weight/a.b", "dtype": "f32", "n": 100,
                     "ranges": [[1, 60, 40, "2" * 16], [0, 0, 60, "3" * 16]]},
                    {"name": "none", "dtype": "f64", "n": 0, "ranges": []}]}


def ranges(*rows):
    return {**state, "arrays": [{**state["arrays"][1], "ranges": [[*r, "4" * 16] for r in rows]}]}


for name, m in [("good", state), ("gap", ranges([0, 0, 50], [1, 60, 40])), ("overlap", ranges([0, 0, 70], [1, 60, 40])),
                ("no-such-file", ranges([2, 0, 100])), ("beyond", ranges([0, 0, 101])), ("empty-range", ranges([0, 0, 0])),
                ("negative", ranges([0, -1, 100])), ("twice", {**state, "arrays": state["arrays"] * 2}),
                ("more-than-its-file", {**state, "arrays": [{"name": "a", "dtype": "f64", "n": 1 << 40,
                                                             "ranges": [[0, 0, 1 << 40, "5" * 16]]}]}),
                ("absolute", {**state, "arrays": [{**state["arrays"][0], "name": "/steps"}]}),
                ("parent", {**state, "arrays": [{**state["arrays"][0], "name": "a/../steps"}]}),
                ("halves", {**state, "arrays": [{"name": "a", "dtype": "i32", "n": 2, "ranges": [[f, f, 1, "6" * 16]]}
                                                for f in range(2)]}),
                ("first-version", {"format": 1, "step": 12, "fingerprint": "0" * 16, "bytes": 5, "xxh3_64": "0" * 16}),
                ("next-version", {**state, "version": 3}), ("no-files", {**state, "files": []})]:
    put("checkpoint", name, json.dumps(m))
# ---- manifest.json of teacher rows ----

shard = {"file": "rows-00000.h5", "rows": 3, "n_bytes": 8192, "xxh3_64": "0123456789abcdef"}
manifest = {"format": "postnas-teacher-rows", "version": 1, "teacher": {"name": "big", "xxh3_64": "00112233445566aa"},
            "tokenizer": {"xxh3_64": "00112233445566ab", "vocab": 259}, "mixture": {"xxh3_64": "00112233445566ac"},
            "sequence_length": 6, "k": 4, "temperature": 1.5, "rows": 4, "shard_rows": 3,
            "shards": [shard, {**shard, "file": "rows-00001-to-1.h5", "rows": 1}]}
put("teacher_manifest", "two", json.dumps(manifest))
put("teacher_manifest", "one", json.dumps({**manifest, "rows": 3, "shards": [shard]}))
put("teacher_manifest", "outside", json.dumps({**manifest, "rows": 3, "shards": [{**shard, "file": "../passwd.h5"}]}))
put("teacher_manifest", "lying", json.dumps({**manifest, "shard_rows": 2**40, "rows": 2**40, "sequence_length": 2**24,
                                             "k": 259, "shards": [{**shard, "rows": 2**40, "n_bytes": 2**60}]}))
