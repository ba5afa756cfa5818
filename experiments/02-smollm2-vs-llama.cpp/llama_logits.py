"""Logits of llama.cpp as a safetensors file for `postnas check model --expected`.

    llama_logits.py blas|rounded FILE.gguf WORK_DIR
    llama_logits.py self FILE.gguf WORK_DIR

blas: batches of 512 tokens, which a llama.cpp built with BLAS multiplies with the dequantised weights in F32.
rounded: the same tokens in batches of 16, too small for BLAS: llama.cpp's own kernels multiply the quantised weights
with activations rounded to 8 bits.
self: how far those two, both llama.cpp's, are from each other.
Reads WORK_DIR/english.txt and what postnas made of it (WORK_DIR/ids), compares the token ids, writes
WORK_DIR/KIND.safetensors.
"""
import glob
import json
import os
import struct
import sys

import h5py
import llama_cpp as llama
import numpy as np

WINDOWS, WINDOW = 4, 512
MICRO_BATCH = {"blas": WINDOW, "rounded": 16}  # tokens multiplied at once; llama.cpp uses BLAS from 32 on


def load(path):
    params = llama.llama_model_default_params()
    params.use_extra_bufts = False  # no repacked copies of the weights, which BLAS could not read
    model = llama.llama_model_load_from_file(path.encode(), params)
    if not model:
        sys.exit(f"llama_logits: llama.cpp could not read {path}")
    return model


def context_params(kind):
    p = llama.llama_context_default_params()
    p.n_ctx = p.n_batch = WINDOW
    p.n_ubatch = MICRO_BATCH[kind]
    p.n_threads = p.n_threads_batch = 2
    p.flash_attn_type = 0  # disabled
    p.type_k = p.type_v = 0  # keys and values in F32
    return p


def tokenize(vocab, text):
    room = len(text) + 16
    ids = (llama.llama_token * room)()
    n = llama.llama_tokenize(vocab, text, len(text), ids, room, False, False)
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


def window_logits(model, params, ids, vocab_size):
    context = llama.llama_init_from_model(model, params)
    if not context:
        sys.exit("llama_logits: llama.cpp made no context")
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
        batch.seq_id[i][0] = 0
    if llama.llama_decode(context, batch):
        sys.exit("llama_logits: llama_decode failed")
    rows = [np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (vocab_size,)).copy() for i in range(len(ids))]
    llama.llama_batch_free(batch)
    llama.llama_free(context)
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
    exact, rounded = (read_logits(os.path.join(work, kind + ".safetensors")) for kind in MICRO_BATCH)
    kl, equal = 0.0, 0
    for p, q in zip(exact, rounded):
        p, q = (z.astype(np.float64) - z.max() for z in (p, q))
        equal += int(p.argmax() == q.argmax())
        p, q = (z - np.log(np.exp(z).sum()) for z in (p, q))
        kl += float((np.exp(p) * (p - q)).sum())
    print(f"llama.cpp with BLAS against llama.cpp's own kernels: mean KL {kl / len(exact):.1e}, "
          f"first choice equal for {equal} of {len(exact)} tokens")


def main():
    kind, path, work = sys.argv[1:4]
    if kind == "self":
        return compare_self(work)
    llama.llama_backend_init()
    model = load(path)
    vocab = llama.llama_model_get_vocab(model)
    with open(os.path.join(work, "english.txt"), "rb") as f:
        ids = tokenize(vocab, f.read())
    compare_ids(ids, our_ids(work))
    if len(ids) < WINDOWS * WINDOW:
        sys.exit(f"llama_logits: the text has {len(ids)} tokens; {WINDOWS * WINDOW} are wanted")
    ids = ids[:WINDOWS * WINDOW].astype(np.int64).reshape(WINDOWS, WINDOW)
    params, size = context_params(kind), llama.llama_vocab_n_tokens(vocab)
    logits = np.stack([window_logits(model, params, row, size) for row in ids])
    write(os.path.join(work, kind + ".safetensors"), ids, logits)


if __name__ == "__main__":
    main()
