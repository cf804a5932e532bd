"""What scripts/import_gguf refuses. The rules are tested with python3 alone; whole files need the gguf package, as the script itself
does: they are tested when the script's environment (.venv, or $TESSERA_VENV) has been made, and skipped otherwise."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "scripts" / "lib"
sys.path.insert(0, str(LIB))

import gguf_layout  # noqa: E402
from gguf_metadata import UnreadableModel  # noqa: E402


class Metadata:
    def __init__(self, **values):
        self.values = {key.replace("__", "."): value for key, value in values.items()}

    def get(self, key, default=None):
        return self.values.get(key, default)

    def keys(self):
        return self.values.keys()


class TensorInfo:
    def __init__(self, name, shape):
        self.name, self.shape = name, list(reversed(shape))


CONFIG = {"hidden_size": 8, "intermediate_size": 12, "vocab_size": 10, "num_attention_heads": 2, "num_key_value_heads": 1,
          "head_dim": 4, "num_hidden_layers": 2, "tie_word_embeddings": False}


def whole(config=CONFIG):
    return [TensorInfo(name, shape) for name, shape in gguf_layout.expected_shapes(config).items()]


class Layout(unittest.TestCase):
    def fault(self, tensors, config=CONFIG):
        with self.assertRaises(UnreadableModel) as caught:
            gguf_layout.check_tensors(tensors, config)
        return str(caught.exception)

    def test_a_whole_file_is_taken(self):
        gguf_layout.check_tensors(whole(), CONFIG)
        tied = dict(CONFIG, tie_word_embeddings=True)
        gguf_layout.check_tensors(whole(tied) + [TensorInfo("rope_freqs.weight", [2])], tied)

    def test_any_missing_tensor_is_named(self):
        for gone in whole():
            if gone.name == "output.weight":
                continue  # a tied head
            self.assertIn(f'the tensor "{gone.name}" is missing',
                          self.fault([tensor for tensor in whole() if tensor.name != gone.name]))
        half = [tensor for tensor in whole() if not tensor.name.startswith("blk.1.")]
        self.assertEqual(self.fault(half),
                         'the tensor "blk.1.attn_norm.weight" and 8 others is missing: the file is not whole')

    def test_layers_and_tensors_too_many_are_named(self):
        self.assertIn("belongs to no layer: llama.block_count is 2", self.fault(whole() + [TensorInfo("blk.2.attn_q.weight", [8, 8])]))
        self.assertIn("has no place", self.fault(whole() + [TensorInfo("blk.0.attn_q.bias", [8])]))
        self.assertIn("is there twice", self.fault(whole() + [whole()[0]]))

    def test_embeddings_of_another_size_than_the_vocabulary_are_named(self):
        for name in ("token_embd.weight", "output.weight"):
            tensors = [TensorInfo(t.name, [12, 8]) if t.name == name else t for t in whole()]
            self.assertEqual(self.fault(tensors),
                             f'the tensor "{name}" is [12, 8], expected [10, 8]: the vocabulary has 10 tokens')

    def test_a_part_of_a_split_model_is_refused(self):
        for number in (0, 1):
            with self.assertRaisesRegex(UnreadableModel, f"is file {number + 1} of 2 of one model"):
                gguf_layout.check_one_file(Metadata(split__count=2, split__no=number), whole())
        with self.assertRaisesRegex(UnreadableModel, "holds 21 of the model's 30 tensors"):
            gguf_layout.check_one_file(Metadata(split__count=1, split__tensors__count=30), whole())
        gguf_layout.check_one_file(Metadata(split__count=1, split__tensors__count=21), whole())

    def test_rope_scaling_that_trainer_refuses_is_refused(self):
        for kind in ("linear", "yarn", "longrope", "su"):
            with self.assertRaisesRegex(UnreadableModel, f'the RoPE scaling "{kind}" is not supported'):
                gguf_layout.rope_kind(Metadata(llama__rope__scaling__type=kind, llama__rope__scaling__factor=4.0))
        with self.assertRaises(UnreadableModel):
            gguf_layout.rope_kind(Metadata(llama__rope__scaling__type="yarn"))
        self.assertEqual(gguf_layout.rope_kind(Metadata()), "none")

    def test_keys_that_change_the_arithmetic_are_refused(self):
        gguf_layout.check_arithmetic(Metadata(llama__block_count=2, llama__expert_count=0, general__name="x"))
        with self.assertRaisesRegex(UnreadableModel, 'the key "llama.logit_scale" is not understood'):
            gguf_layout.check_arithmetic(Metadata(llama__logit_scale=0.5))
        with self.assertRaisesRegex(UnreadableModel, '"llama.rope.scale_linear" is 4.0, and only 1.0 is supported'):
            gguf_layout.check_arithmetic(Metadata(llama__rope__scale_linear=4.0))


PYTHON = Path(os.environ.get("TESSERA_VENV", ROOT / ".venv")) / "bin" / "python"
HAS_GGUF = PYTHON.exists() and subprocess.run([PYTHON, "-c", "import gguf, numpy"], capture_output=True).returncode == 0

WRITER = """
import sys, json, gguf, numpy as np
sys.path.insert(0, sys.argv[3])
import gguf_layout
path, options = sys.argv[1], json.loads(sys.argv[2])
endian = gguf.GGUFEndian.BIG if options.get("big") else gguf.GGUFEndian.LITTLE
writer = gguf.GGUFWriter(path, "llama", endianess=endian)
writer.add_context_length(32)
writer.add_embedding_length(8)
writer.add_block_count(2)
writer.add_feed_forward_length(12)
writer.add_head_count(2)
writer.add_head_count_kv(options.get("kv", 1))
writer.add_layer_norm_rms_eps(1e-5)
if options.get("rope"):
    writer.add_rope_scaling_type(gguf.RopeScalingType(options["rope"]))
    writer.add_rope_scaling_factor(4.0)
if options.get("split"):
    writer.add_uint16("split.no", 0)
    writer.add_uint16("split.count", 2)
tokens = ["<unk>", "<s>", "</s>"] + list("abcdefg")
writer.add_tokenizer_model("llama")
writer.add_token_list(tokens)
writer.add_token_scores([0.0] * options.get("scores", 10))
writer.add_token_types([2, 3, 3] + [1] * 7)
writer.add_bos_token_id(options.get("bos", 1))
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
config = {"hidden_size": 8, "intermediate_size": 12, "vocab_size": options.get("rows", 10), "num_attention_heads": 2,
          "num_key_value_heads": 1, "head_dim": 4, "num_hidden_layers": 2, "tie_word_embeddings": not options.get("head")}
for name, shape in gguf_layout.expected_shapes(config).items():
    if name.startswith(options.get("without", "-")):
        continue
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 64
    if name == options.get("broken"):
        values[0, 0] = np.nan
    writer.add_tensor(name, values)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


@unittest.skipUnless(HAS_GGUF, "the environment of scripts/import_gguf is not there")
class WholeFiles(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.model, self.out = Path(self.folder.name) / "m.gguf", Path(self.folder.name) / "out"

    def tearDown(self):
        self.folder.cleanup()

    def run_import(self):
        return subprocess.run([PYTHON, LIB / "import_gguf.py", self.model, self.out], capture_output=True, text=True)

    def imported(self, **options):
        subprocess.run([PYTHON, "-c", WRITER, self.model, json.dumps(options), LIB], check=True)
        return self.run_import()

    def refused(self, message, **options):
        ended = self.imported(**options)
        self.assertEqual((ended.returncode, message in ended.stderr), (2, True), ended.stderr)
        self.assertFalse((self.out / "config.json").exists())

    def test_a_whole_file_is_imported(self):
        ended = self.imported()
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertTrue(json.loads((self.out / "config.json").read_text())["tie_word_embeddings"])
        self.assertEqual(self.imported(head=True).returncode, 0)
        self.assertFalse(json.loads((self.out / "config.json").read_text())["tie_word_embeddings"])

    def test_what_is_not_whole_is_refused(self):
        self.refused("is file 1 of 2 of one model", split=True, without="blk.1")
        self.refused('"blk.1.attn_norm.weight" and 8 others is missing', without="blk.1")
        self.refused("expected [10, 8]: the vocabulary has 10 tokens", rows=12)
        self.refused("is a big-endian file", big=True)
        self.refused('the RoPE scaling "linear" is not supported', rope="linear")
        self.refused('the RoPE scaling "yarn" is not supported', rope="yarn")
        self.refused('"llama.attention.head_count_kv" is no single number', kv=[1, 2])
        self.refused("has 9 entries for 10 tokens", scores=9)
        self.refused('"tokenizer.ggml.bos_token_id" is 77', bos=77)
        self.refused("holds numbers that are not finite", broken="blk.0.attn_q.weight")

    def test_what_is_no_gguf_file_is_refused(self):
        self.imported()
        whole = self.model.read_bytes()
        for content, message in ((whole[:-100], "cannot be read as a GGUF file"), (whole[:40], "cannot be read"),
                                 (b"hello", "cannot be read"), (b"", "cannot be read"),
                                 (b"version https://git-lfs.github.com/spec/v1\noid", "is a git-lfs pointer")):
            self.model.write_bytes(content)
            ended = self.run_import()
            self.assertEqual((ended.returncode, message in ended.stderr), (2, True), ended.stderr)
        self.model.unlink()
        self.assertIn("does not exist", self.run_import().stderr)
        self.model.mkdir()
        self.assertIn("is no file", self.run_import().stderr)


if __name__ == "__main__":
    unittest.main()
