"""Golden files, and models made of them with a tokenizer of characters."""

import json
import os
import shutil
import string

import numpy as np

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
GOLDENS = os.path.join(ROOT, "tests/goldens")
CHARACTERS = string.printable[:97]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
TYPES = {"F32": np.float32, "I32": np.int32, "I64": np.int64}


def tensors(golden, name="golden"):
    """The tensors of a golden file, by name."""
    with open(os.path.join(GOLDENS, golden, name + ".safetensors"), "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    found = {}
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        found[key] = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def folder(golden):
    return os.path.join(GOLDENS, golden)


def with_tokenizer(golden, to):
    """A copy of a golden model whose tokens are characters."""
    os.makedirs(to, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(os.path.join(GOLDENS, golden, name), to)
    with open(os.path.join(to, "config.json")) as file:
        count = json.load(file)["vocab_size"]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "post_processor": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?s)."}, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "unk_token": "0", "vocab": {c: i for i, c in enumerate(CHARACTERS[:count])}},
    }
    with open(os.path.join(to, "tokenizer.json"), "w") as file:
        json.dump(tokenizer, file)
    with open(os.path.join(to, "tokenizer_config.json"), "w") as file:
        json.dump({"chat_template": TEMPLATE}, file)
    return to


def text_of(ids):
    return "".join(CHARACTERS[i] for i in ids)


def error(got, wanted):
    """The largest error over the largest number; NaN never passes a comparison."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    return np.abs(got - wanted).max() / np.abs(wanted).max()
