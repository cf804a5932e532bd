"""Passes of llama.cpp (its fork ik_llama.cpp) through the C interface of its Python package."""

import sys

from ik_llama_cpp import _ctypes_api as llama

CHUNK = 512  # tokens of a call, and of what it computes at once


def load(file):
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
    if not model:
        sys.exit(f"error: llama.cpp does not read {file}")
    return model


class Context:
    """Keys and values of sequences in one cache, and the passes over them.

    The package's fused attention ends with an assertion that fails as soon as there are several sequences (version 0.1.5).
    """

    def __init__(self, model, cells, sequences, threads, fused=None, chunk=CHUNK):
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = cells, chunk, CHUNK, sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn = sequences == 1 if fused is None else fused
        self.chunk = chunk
        self.context = llama.llama_init_from_model(model, params)
        if not self.context:
            sys.exit(f"error: llama.cpp makes no context of {cells} cells")
        self.batch = llama.llama_batch_init(chunk, 0, 1)

    def decode(self, rows):
        """@param rows  (token, position, sequence, whether its logits are wanted), at most `chunk`"""
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            self.batch.logits[i] = wanted
        if llama.llama_decode(self.context, self.batch) != 0:
            sys.exit("error: llama_decode failed")

    def read(self, rows):
        """Any number of rows; nothing is looked at in between."""
        for begin in range(0, len(rows), self.chunk):
            self.decode(rows[begin:begin + self.chunk])

    def logits(self, row):
        """Of a row of the last `decode` that wanted them; waits for the pass."""
        return llama.llama_get_logits_ith(self.context, row)

    def share(self, source, sequence, tokens):
        """`sequence` sees the first tokens of `source`, in the same cells."""
        llama._lib.llama_kv_cache_seq_cp(ctypes_p(self.context), source, sequence, 0, tokens)

    def forget(self, sequence, begin):
        """The sequence's tokens from position `begin` on."""
        llama._lib.llama_kv_cache_seq_rm(ctypes_p(self.context), sequence, begin, -1)

    def clear(self):
        llama.llama_kv_cache_clear(self.context)

    def close(self):
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.context)


def ctypes_p(context):
    return llama.llama_context_p(context)
