"""Models."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, TypedDict, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _wgformer
from ._arrays import batch, integers
from ._errors import InputError
from ._gpu import Gpu, opened
from ._train import Step

if TYPE_CHECKING:
    from typing_extensions import Unpack

Path = Union[str, "os.PathLike[str]"]
Message = Mapping[str, str]
Prompt = Union[str, Sequence[int], "NDArray[np.integer[Any]]"]


class Info(NamedTuple):
    """What a model is: see the properties of `Model`."""

    family: str
    parameters: int
    vocabulary: int
    context: int
    width: int
    layers: int
    generates: bool
    embeds: bool
    has_tokenizer: bool
    chats: bool


class Answer(NamedTuple):
    """An answer."""

    text: Optional[str]
    """The new text; None if the model has no tokenizer."""
    tokens: List[int]
    """The new tokens, with one that ends the answer."""
    finish: str
    """Why it ended: "end" (an end token), "stop" (a text of `stop`), "length" (`max_tokens`), "context" (no position is left)."""


class Options(TypedDict, total=False):
    """Options of `Model.generate`."""

    max_tokens: Optional[int]
    temperature: Optional[float]
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: Optional[float]
    seed: int
    stop: Union[str, Sequence[str]]


class Token(NamedTuple):
    """A token of an answer."""

    id: int
    text: str
    """The text that became certain with it; empty while a character is incomplete, or the model has no tokenizer."""
    finish: Optional[str]
    """Set on the last: see `Answer.finish`."""


def load(
    path: Path,
    *,
    gpu: Union[Gpu, str, int, None] = None,
    dtype: Optional[str] = None,
    cache: Optional[str] = None,
    context: Optional[int] = None,
    tokenizer: Optional[Path] = None,
) -> "Model":
    """Loads a model.

    Args:
        path: a folder as Hugging Face has it, that of an adapter (LoRA), or a GGUF file.
        gpu: a `Gpu`, or what `Gpu` takes. None: the default one, opened once.
        dtype: the type of the matrices in GPU memory: "f32", "f16", "bf16", or one of blocks, such as "q8_0" or "q4_k". None: each as the file
            has it. Training needs the first three.
        cache: the type of the caches of keys and values: "f32" (None), "f16" or "q8_0".
        context: the most tokens of a text with its answer. None: as many as the model has positions.
        tokenizer: a folder with a tokenizer, or its file, in place of the model's.

    Raises:
        FormatError, FileError: the path holds no model, or a damaged one.
        OutOfMemoryError: the GPU does not hold the weights.
        NoAdapterError: there is no such GPU.
    """
    options = (dtype, cache, _count("context", context), tokenizer)
    return Model(_wgformer.Model.load(opened(gpu)._gpu, os.fspath(path), options))


def create(
    config: Union[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    gpu: Union[Gpu, str, int, None] = None,
    dtype: Optional[str] = None,
    cache: Optional[str] = None,
    context: Optional[int] = None,
    tokenizer: Optional[Path] = None,
) -> "Model":
    """Makes a model with fresh weights, the same for the same seed.

    Args:
        config: what `config.json` has, as a dict or as text: `model_type` and the family's keys.
        seed: of the weights.
        gpu, dtype, cache, context, tokenizer: as of `load`.

    Raises:
        FormatError: a key is missing or wrong.
    """
    text = config if isinstance(config, str) else json.dumps(config)
    options = (dtype, cache, _count("context", context), tokenizer)
    return Model(_wgformer.Model.new(opened(gpu)._gpu, text, _count("seed", seed), options))


def _count(what: str, value: Optional[int]) -> Any:
    if value is not None and not 0 <= value < 1 << 64:
        raise InputError(f"{what}: it is {value}, but must be from 0 to 2^64 - 1")
    return value


class Model:
    """A model on a GPU, by `load` or `create`.

    Any thread may use it; calls wait for one another. In the shapes below B counts rows, T tokens of a row, V tokens of the vocabulary, C features.
    """

    def __init__(self, model: _wgformer.Model) -> None:
        self._model = model
        self._info = Info(**model.info())

    @property
    def family(self) -> str:
        """`model_type`, such as "llama"."""
        return self._info.family

    @property
    def parameters(self) -> int:
        """Values that are trained."""
        return self._info.parameters

    @property
    def vocabulary(self) -> int:
        """Tokens of the vocabulary, V."""
        return self._info.vocabulary

    @property
    def context(self) -> int:
        """The most tokens of a text with its answer."""
        return self._info.context

    @property
    def width(self) -> int:
        """Features of a hidden state, C, also of a text's vector."""
        return self._info.width

    @property
    def layers(self) -> int:
        """Layers."""
        return self._info.layers

    @property
    def generates(self) -> bool:
        """Whether it continues texts."""
        return self._info.generates

    @property
    def embeds(self) -> bool:
        """Whether it makes vectors of texts."""
        return self._info.embeds

    @property
    def has_tokenizer(self) -> bool:
        """Whether it takes texts."""
        return self._info.has_tokenizer

    @property
    def chats(self) -> bool:
        """Whether it has a template for conversations."""
        return self._info.chats

    @property
    def config(self) -> Dict[str, Any]:
        """What `config.json` has."""
        config: Dict[str, Any] = json.loads(self._model.config())
        return config

    def __repr__(self) -> str:
        return f"<wgformer.Model {self.family}, {self.parameters} parameters>"

    # ---- Texts ----

    def tokenize(self, text: str) -> NDArray[np.uint32]:
        """The tokens of a text, (T,), with those that the model wants around it."""
        return np.array(self._model.tokenize(text), dtype=np.uint32)

    def detokenize(self, ids: ArrayLike) -> str:
        """The text of tokens (T,), without special ones."""
        return self._model.detokenize(integers("ids", ids, np.uint32).ravel().tolist())

    def _prompt(self, prompt: Any) -> List[int]:
        if isinstance(prompt, str):
            return self._model.tokenize(prompt)
        if _is_conversation(prompt):
            return self._model.tokenize_chat([_message(message) for message in prompt])
        array = integers("prompt", prompt, np.uint32)
        if array.ndim != 1:
            raise InputError(f"prompt: its shape is {array.shape}, but one of tokens is (T,)")
        ids: List[int] = array.tolist()
        return ids

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Answer:
        """Goes on from a text.

        Options that are None are as the model's files say, and greedy where they say nothing. Ctrl-C ends it behind the next token.

        Args:
            prompt: a text, or its tokens (T,).
            max_tokens: the most new tokens; 128 where the model's files do not say.
            temperature: the divisor of logits; 0: greedy.
            top_k: draw from so many of the likeliest tokens; 0: all.
            top_p: draw from the likeliest tokens with this probability together; 1: all.
            min_p: draw from tokens with at least this share of the likeliest's probability; 0: all.
            repetition_penalty: tokens that occurred are less likely; 1: as likely as before.
            seed: the same gives the same answer.
            stop: a text that ends an answer, which has it not; or several.

        Raises:
            InputError: the model is an encoder, the prompt is empty or too long, an option is out of range.
        """
        return self.generate_batch([prompt], **options)[0]

    def generate_batch(self, prompts: Sequence[Prompt], **options: Unpack[Options]) -> List[Answer]:
        """Goes on from several texts, up to eight at a time: faster than one after another. Arguments as of `generate`."""
        answers = self._model.generate([self._prompt(prompt) for prompt in prompts], _options(**options))
        return [Answer(*answer) for answer in answers]

    def chat(self, messages: Union[str, Sequence[Message]], **options: Unpack[Options]) -> Answer:
        """Answers a conversation in the model's template.

        Args:
            messages: dicts with "role" ("system", "user" or "assistant") and "content"; or the text of a user.
            options: those of `generate`.

        Raises:
            InputError: the model has no template.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        ids = self._model.tokenize_chat([_message(message) for message in messages])
        return self.generate(ids, **options)

    def stream(self, prompt: Union[Prompt, Sequence[Message]], **options: Unpack[Options]) -> Iterator[Token]:
        """The tokens of an answer as they come. The model goes on by itself, and other calls with it wait, until the last token, or until the
        iterator is closed or dropped.

        Args:
            prompt: a text, its tokens (T,), or a conversation as `chat` takes it.
            options: those of `generate`.
        """
        return _tokens(self._model, self._prompt(prompt), _options(**options))

    def embed(self, texts: Union[str, Sequence[str]]) -> NDArray[np.float32]:
        """The vectors of texts, (texts, C) float32, or (C,) of one: pooled and scaled as the model's files say.

        Raises:
            InputError: the model continues texts, or a text has no tokens.
        """
        if isinstance(texts, str):
            return self._model.embed([texts]).reshape(-1)
        return self._model.embed(list(texts))

    # ---- Numbers ----

    def _forward(self, wanted: str, ids: Any, mask: Any, types: Any) -> NDArray[np.float32]:
        rows, single = batch("ids", ids, np.uint32)
        masks = None if mask is None else batch("mask", mask, np.uint32, rows)[0]
        parts = None if types is None else batch("types", types, np.uint32, rows)[0]
        name, values, shape = self._model.forward(rows, masks, parts)
        if name != wanted:
            other = "hidden_states" if wanted == "logits" else "logits"
            raise InputError(f"model: it gives {name}: use {other}")
        return values.reshape(shape[1:] if single else shape)

    def logits(
        self, ids: ArrayLike, mask: Optional[ArrayLike] = None, types: Optional[ArrayLike] = None
    ) -> NDArray[np.float32]:
        """Logits: (B, T, V) float32 of a decoder or an encoder that predicts tokens; of one with classes those of the classes.

        Args:
            ids: tokens, (B, T), or (T,) for a result without B.
            mask: 0 on padding, else 1, of the same shape.
            types: the part of the text that each token belongs to, for encoders.
        """
        return self._forward("logits", ids, mask, types)

    def hidden_states(
        self, ids: ArrayLike, mask: Optional[ArrayLike] = None, types: Optional[ArrayLike] = None
    ) -> NDArray[np.float32]:
        """The last hidden states of an encoder without a head, (B, T, C) float32. Arguments as of `logits`."""
        return self._forward("last_hidden_state", ids, mask, types)

    def loss(self, ids: ArrayLike, labels: Optional[ArrayLike] = None, mask: Optional[ArrayLike] = None) -> float:
        """The mean cross-entropy of a decoder, in nats.

        Args:
            ids: tokens, (B, T) or (T,).
            labels: as in transformers: that of a token is what the tokens in front are to predict there; negative ones, such as -100, do not count.
                None: the tokens themselves.
            mask: 0 on padding, else 1.
        """
        rows, _ = batch("ids", ids, np.uint32)
        masks = None if mask is None else batch("mask", mask, np.uint32, rows)[0]
        wanted = None if labels is None else batch("labels", labels, np.int32, rows)[0]
        return self._model.loss(rows, masks, wanted)

    # ---- Training ----

    def train_step(
        self, ids: ArrayLike, labels: Optional[ArrayLike] = None, *, learning_rate: float = 1e-3
    ) -> Step:
        """One step of AdamW with the constants of `Trainer`'s defaults. Afterwards the model generates with the new weights.

        Args:
            ids: tokens, (B, T) or (T,). A new shape prepares programs of its own.
            labels: as of `loss`; give padding behind a text labels of -100.
        """
        rows, _ = batch("ids", ids, np.uint32)
        wanted = None if labels is None else batch("labels", labels, np.int32, rows)[0]
        return Step(*self._model.train_step(rows, wanted, learning_rate))

    def save(self, path: Path) -> None:
        """Saves a folder as Hugging Face has it: configuration, weights, tokenizer."""
        self._model.save(os.fspath(path))


def _tokens(model: _wgformer.Model, ids: List[int], options: Dict[str, Any]) -> Iterator[Token]:
    stream = model.stream(ids, options)
    try:
        while True:
            token = stream.next()
            if token is None:
                return
            yield Token(*token)
    finally:
        stream.close()


def _is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, (list, tuple)) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


def _message(message: Message) -> Any:
    try:
        return (message["role"], message["content"])
    except (KeyError, TypeError):
        raise InputError(f'messages: one is {message!r}, but {{"role": …, "content": …}} is needed') from None


def _options(
    max_tokens: Optional[int] = None,
    temperature: Optional[float] = None,
    top_k: Optional[int] = None,
    top_p: Optional[float] = None,
    min_p: Optional[float] = None,
    repetition_penalty: Optional[float] = None,
    seed: int = 0,
    stop: Union[str, Sequence[str]] = (),
) -> Dict[str, Any]:
    return {
        "max_tokens": _count("max_tokens", max_tokens),
        "temperature": temperature,
        "top_k": _count("top_k", top_k),
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": _count("seed", seed),
        "stop": [stop] if isinstance(stop, str) else list(stop),
    }
