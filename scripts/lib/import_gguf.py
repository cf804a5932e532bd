"""Turns a GGUF file into a Hugging Face folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json.

The weights are read by gguf_model.py, the tokenizer by gguf_tokenizer.py. config.json is written last, so that a
folder that has one is complete.
"""

import argparse
import json
import sys
from pathlib import Path

import gguf

import gguf_model
import gguf_tokenizer
from gguf_metadata import UnreadableModel, Metadata


LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def main():
    options = parse_arguments()
    try:
        import_gguf(options.model, options.out, options.dtype, options.pre)
    except UnreadableModel as error:
        print(f"{options.model}: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"{error.filename or options.out}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="import_gguf", description="turns a GGUF file into a Hugging Face folder")
    parser.add_argument("model", metavar="MODEL.gguf", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; made when it is not there")
    parser.add_argument("--dtype", choices=sorted(gguf_model.DTYPES), default="f32",
                        help="type of the weights written (default f32, which keeps every quantised type exactly)")
    parser.add_argument("--pre", metavar="NAME", choices=sorted(gguf_tokenizer.PRE_TOKENIZERS),
                        help="pre-tokenizer to use in place of the one the file names: %(choices)s")
    return parser.parse_args()


def import_gguf(model, out, dtype, pre):
    reader = open_reader(model)
    metadata = Metadata(reader)
    config = gguf_model.config(metadata, reader.tensors, dtype)
    tokenizer, tokenizer_config = gguf_tokenizer.convert(metadata, pre)

    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").unlink(missing_ok=True)
    num_bytes = gguf_model.write_weights(reader.tensors, config, dtype, out / "model.safetensors")
    write_json(out / "tokenizer.json", tokenizer)
    write_json(out / "tokenizer_config.json", tokenizer_config)
    write_json(out / "config.json", config)
    print(f"{out}: {len(reader.tensors)} tensors, {num_bytes / 1e6:.0f} MB of {dtype}; "
          f"{config['vocab_size']} tokens", file=sys.stderr)


def open_reader(path):
    if not path.is_file():
        raise UnreadableModel("is no file" if path.exists() else "does not exist")
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UnreadableModel('is a git-lfs pointer: the file itself was not fetched (run "git lfs pull")')
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UnreadableModel(f"cannot be read as a GGUF file: {error}") from None
    if reader.endianess != gguf.GGUFEndian.LITTLE:
        raise UnreadableModel("is a big-endian file, which is not supported; convert it for this machine first")
    return reader


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
