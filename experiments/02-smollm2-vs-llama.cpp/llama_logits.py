"""Logits of llama.cpp as a safetensors file for `postnas check model --expected`.

    llama_logits.py gguf|f32 FILE.gguf WORK_DIR
    llama_logits.py self FILE.gguf WORK_DIR

gguf: the file as it is; llama.cpp multiplies its quantised weights with activations rounded to 8 bits.
f32: a copy whose weights are the same dequantised values in F32, so that only the order of additions differs.
self: how far those two, both llama.cpp's, are from each other.
Reads WORK_DIR/english.txt and what postnas made of it (WORK_DIR/ids), compares the token ids, writes
WORK_DIR/KIND.safetensors. llama.cpp is called through the C functions that the wheel's library exports.
"""
import ctypes as C
import glob
import json
import os
import struct
import sys

import gguf
import h5py
import numpy as np
import xllamacpp

WINDOWS, WINDOW = 4, 512
WORDS = 128  # room for a struct passed by value: more than any version needs


class Params(C.Structure):
    _fields_ = [("word", C.c_int32 * WORDS)]


class Batch(C.Structure):
    _fields_ = [("n_tokens", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embd", C.c_void_p),
                ("pos", C.POINTER(C.c_int32)), ("n_seq_id", C.POINTER(C.c_int32)),
                ("seq_id", C.POINTER(C.POINTER(C.c_int32))), ("logits", C.POINTER(C.c_int8))]


# Places in llama_context_params, in 32-bit words, and what must stand there before they are trusted.
N_CTX, N_BATCH, N_UBATCH, N_SEQ, THREADS, FLASH, TYPE_K = 0, 1, 2, 3, 7, 13, 26
DEFAULTS = {N_CTX: 512, N_BATCH: 2048, N_UBATCH: 512, N_SEQ: 1, THREADS: 4, FLASH: -1, TYPE_K: 1, TYPE_K + 1: 1}


def library():
    lib = C.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])
    for name, result, arguments in (
            ("llama_model_default_params", Params, []),
            ("llama_context_default_params", Params, []),
            ("llama_model_load_from_file", C.c_void_p, [C.c_char_p, Params]),
            ("llama_init_from_model", C.c_void_p, [C.c_void_p, Params]),
            ("llama_model_get_vocab", C.c_void_p, [C.c_void_p]),
            ("llama_vocab_n_tokens", C.c_int32, [C.c_void_p]),
            ("llama_tokenize", C.c_int32,
             [C.c_void_p, C.c_char_p, C.c_int32, C.POINTER(C.c_int32), C.c_int32, C.c_bool, C.c_bool]),
            ("llama_batch_init", Batch, [C.c_int32, C.c_int32, C.c_int32]),
            ("llama_decode", C.c_int32, [C.c_void_p, Batch]),
            ("llama_get_logits_ith", C.POINTER(C.c_float), [C.c_void_p, C.c_int32]),
            ("llama_free", None, [C.c_void_p])):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.llama_backend_init()
    return lib


def context_params(lib):
    p = lib.llama_context_default_params()
    for place, value in DEFAULTS.items():
        if p.word[place] != value:
            sys.exit(f"llama_logits: word {place} of llama_context_params is {p.word[place]}, not {value}: this llama.cpp "
                     "lays it out otherwise; install the versions of requirements.txt")
    p.word[N_CTX] = p.word[N_BATCH] = p.word[N_UBATCH] = WINDOW
    p.word[THREADS] = p.word[THREADS + 1] = 2
    p.word[FLASH] = 0                        # off
    p.word[TYPE_K] = p.word[TYPE_K + 1] = 0  # keys and values in F32
    return p


def tokenize(lib, vocab, text):
    room = len(text) + 16
    ids = (C.c_int32 * room)()
    n = lib.llama_tokenize(vocab, text, len(text), ids, room, False, False)
    return np.array(ids[:n], dtype=np.int32)


def our_ids(work):
    with h5py.File(glob.glob(os.path.join(work, "ids/train/shard-*.h5"))[0]) as f:
        return np.array(f["tokens"], dtype=np.int32)


def compare_ids(theirs, ours):
    """postnas frames a document with the model's begin and end tokens; llama.cpp was asked for the text alone."""
    for begin in (0, 1):
        if np.array_equal(ours[begin:begin + len(theirs)], theirs):
            print(f"token ids: {len(theirs)} equal")
            return
    n = min(len(ours), len(theirs))
    first = int(np.argmax(ours[:n] != theirs[:n]))
    sys.exit(f"llama_logits: token ids differ from position {first}: postnas {ours[first:first + 5]}, "
             f"llama.cpp {theirs[first:first + 5]}")


def dequantised(path, out):
    """A copy with every tensor in F32."""
    if os.path.exists(out):
        return out
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out + ".part", reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for t in reader.tensors:
        values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        writer.add_tensor(t.name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(out + ".part", out)
    return out


def window_logits(lib, model, params, ids, vocab_size):
    context = lib.llama_init_from_model(model, params)
    if not context:
        sys.exit("llama_logits: llama.cpp made no context")
    batch = lib.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
        batch.seq_id[i][0] = 0
    if lib.llama_decode(context, batch):
        sys.exit("llama_logits: llama_decode failed")
    rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (vocab_size,)).copy() for i in range(len(ids))]
    lib.llama_free(context)
    return np.stack(rows)


def write(path, ids, logits):
    header, at = {}, 0
    for name, array, kind in (("input_ids", ids, "I64"), ("logits", logits, "F32")):
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + ids.tobytes() + logits.tobytes())


def read_logits(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        entry = json.loads(f.read(n))["logits"]
    start, shape = entry["data_offsets"][0], entry["shape"]
    values = np.memmap(path, np.float32, "r", 8 + n + start, (int(np.prod(shape)),))
    return values.reshape(-1, shape[-1])


def compare_self(work):
    exact, rounded = (read_logits(os.path.join(work, kind + ".safetensors")) for kind in ("f32", "gguf"))
    kl, equal = 0.0, 0
    for p, q in zip(exact, rounded):
        p, q = (z.astype(np.float64) - z.max() for z in (p, q))
        equal += int(p.argmax() == q.argmax())
        p, q = (z - np.log(np.exp(z).sum()) for z in (p, q))
        kl += float((np.exp(p) * (p - q)).sum())
    print(f"llama.cpp on the gguf file against llama.cpp on its f32 copy: mean KL {kl / len(exact):.1e}, "
          f"first choice equal for {equal} of {len(exact)} tokens")


def main():
    kind, path, work = sys.argv[1:4]
    if kind == "self":
        return compare_self(work)
    if kind == "f32":
        path = dequantised(path, os.path.join(work, "f32.gguf"))
    lib = library()
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    if not model:
        sys.exit(f"llama_logits: llama.cpp could not read {path}")
    vocab = lib.llama_model_get_vocab(model)
    with open(os.path.join(work, "english.txt"), "rb") as f:
        ids = tokenize(lib, vocab, f.read())
    compare_ids(ids, our_ids(work))
    if len(ids) < WINDOWS * WINDOW:
        sys.exit(f"llama_logits: the text has {len(ids)} tokens; {WINDOWS * WINDOW} are wanted")
    ids = ids[:WINDOWS * WINDOW].astype(np.int64).reshape(WINDOWS, WINDOW)
    params, size = context_params(lib), lib.llama_vocab_n_tokens(vocab)
    logits = np.stack([window_logits(lib, model, params, row, size) for row in ids])
    write(os.path.join(work, kind + ".safetensors"), ids, logits)


if __name__ == "__main__":
    main()
