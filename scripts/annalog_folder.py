"""Makes a Hugging Face folder of the ANNalog checkpoint: annalog_folder.py FOLDER, which holds what its package keeps in ckpt_and_vocab.

The checkpoint is a zip file of PyTorch's: a pickle that names tensors, and their bytes. Of the pickle only what makes tensors is obeyed.
"""

import collections
import json
import pathlib
import pickle
import struct
import sys
import zipfile

PARTS = {
    "tok_embedding.": "embed_tokens.",
    "pos_embedding.": "embed_positions.",
    "self_attn_layer_norm.": "self_attn_layer_norm.",
    "enc_attn_layer_norm.": "encoder_attn_layer_norm.",
    "ff_layer_norm.": "final_layer_norm.",
    "self_attention.": "self_attn.",
    "encoder_attention.": "encoder_attn.",
    "positionwise_feedforward.fc_": "fc",
    "fc_q.": "q_proj.",
    "fc_k.": "k_proj.",
    "fc_v.": "v_proj.",
    "fc_o.": "out_proj.",
}
CONFIG = {
    "model_type": "marian",
    # With learned positions and without a norm of embeddings it is none of the classes of transformers.
    "architectures": ["TransformerModel"],
    "is_encoder_decoder": True,
    "vocab_size": 59,
    "decoder_vocab_size": 59,
    "share_encoder_decoder_embeddings": False,
    "tie_word_embeddings": False,
    "d_model": 256,
    "encoder_layers": 3,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 512,
    "decoder_layers": 3,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 512,
    "activation_function": "relu",
    "max_position_embeddings": 102,
    "static_position_embeddings": False,
    "normalize_embedding": False,
    "scale_embedding": True,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "decoder_start_token_id": 2,
    "eos_token_id": 3,
}
# A learned table of positions begins with two rows that stand for nothing.
ROWS_IN_FRONT = 2


class Tensors(pickle.Unpickler):
    """Tensors as (name of their bytes, where they begin in floats, shape)."""

    def find_class(self, module, name):
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, *_: (storage, offset, shape),
            ("torch", "FloatStorage"): "float",
        }
        if (module, name) not in known:
            sys.exit(f"annalog_folder: the checkpoint asks for {module}.{name}, which no tensor needs")
        return known[module, name]

    def persistent_load(self, identifier):
        return identifier[2]


class Words(pickle.Unpickler):
    def find_class(self, module, name):
        sys.exit(f"annalog_folder: the vocabulary asks for {module}.{name}, which no vocabulary needs")


def own_name(name):
    for old, new in PARTS.items():
        name = name.replace(old, new)
    return {"decoder.fc_out.weight": "lm_head.weight", "decoder.fc_out.bias": "final_logits_bias"}.get(name, f"model.{name}")


def tensors(path):
    with zipfile.ZipFile(path) as file:
        root = next(name for name in file.namelist() if name.endswith("data.pkl")).removesuffix("data.pkl")
        for name, (storage, offset, shape) in Tensors(file.open(f"{root}data.pkl")).load().items():
            count = 4
            for size in shape:
                count *= size
            data = file.read(f"{root}data/{storage}")[4 * offset : 4 * offset + count]
            name, shape = own_name(name), list(shape)
            if name.endswith("embed_positions.weight"):
                data = bytes(4 * ROWS_IN_FRONT * shape[1]) + data
                shape[0] += ROWS_IN_FRONT
            yield name, [1, *shape] if name == "final_logits_bias" else shape, data


def tokenizer(words):
    special = [
        {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, word in enumerate(words[:4])
    ]
    around = lambda word: {"id": word, "ids": [words.index(word)], "tokens": [word]}
    begin, end = {"SpecialToken": {"id": "<sos>", "type_id": 0}}, {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    atoms = {"Regex": r"\[[^\]]*\]|%\d{2}|Br|Cl|."}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": atoms, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text, end],
            "pair": [begin, text, end, {"Sequence": {"id": "B", "type_id": 0}}, end],
            "special_tokens": {word: around(word) for word in ("<sos>", "<eos>")},
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"},
    }


def main():
    folder = pathlib.Path(sys.argv[1])
    header, data = {}, bytearray()
    for name, shape, values in tensors(folder / "Lev_extended.pt"):
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    with open(folder / "stereo_experiment_vocab_ttf.pkl", "rb") as file:
        words = Words(file).load()["itos"]
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(words), indent=2))


main()
