"""Models of GluonNLP: BERT and its relatives, Transformers, language models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np

from .model import Arrays, Model, trace

WORDS = 1000
LENGTH = 24  # of a sentence

BERT = "sentence encoding"
TRANSLATION = "translation"
LANGUAGE = "language model"


def vocabulary(kind: str = "Vocab") -> Any:
    """Return a vocabulary of made-up words."""
    import gluonnlp as nlp

    counter = nlp.data.count_tokens([f"word{i}" for i in range(WORDS - 10)])
    return getattr(nlp.vocab, kind)(counter)


def sentences(*names: str, batch: int = 2, length: int = LENGTH) -> Callable[..., Arrays]:
    """Return a maker of sentences, of the kinds of their words, and of their lengths."""

    def draw(rng: np.random.Generator) -> Arrays:
        limits = {"token_types": 2}
        fed = {
            name: rng.integers(0, limits.get(name, WORDS // 2), (batch, length))
            for name in names
            if "length" not in name
        }
        for name in names:
            if "length" in name:
                fed[name] = np.array([length, length // 2, length // 3][:batch])
        return {name: fed[name].astype("float32") for name in names}

    return draw


def bert(
    name: str, *inputs: str, vocab: str = "BERTVocab", size: dict[str, Any] | None = None
) -> Model:
    """Return an encoder of GluonNLP's zoo."""

    def build() -> Any:
        import gluonnlp as nlp

        options = {"dataset_name": None, "pretrained": False}
        if not name.startswith("distilbert"):
            options.update(use_decoder=False)
        if name.startswith(("bert", "ernie")):
            options.update(use_classifier=False)
        net, _ = nlp.model.get_model(name, vocab=vocabulary(vocab), **options)
        return trace(net, *map(mx.sym.var, inputs))

    return Model(f"gluonnlp/{name}", BERT, build, sentences(*inputs))


def small_bert(name: str, classes: int | None) -> Model:
    """Return a BERT of two layers, with a classifier of sentences or without."""

    def build() -> Any:
        import gluonnlp as nlp

        encoder = nlp.model.BERTEncoder(
            num_layers=2, units=64, hidden_size=128, num_heads=4, max_length=64, dropout=0.1
        )
        net: Any = nlp.model.BERTModel(
            encoder,
            vocab_size=WORDS,
            token_type_vocab_size=2,
            units=64,
            embed_size=64,
            use_classifier=False,
            use_decoder=False,
        )
        if classes:
            net = nlp.model.BERTClassifier(net, num_classes=classes, dropout=0.1)
        return trace(net, *map(mx.sym.var, BERT_INPUTS))

    return Model(f"gluonnlp/{name}", BERT, build, sentences(*BERT_INPUTS))


BERT_INPUTS = ("words", "token_types", "valid_length")


def small_transformer_encoder() -> Any:
    """Return the symbol of embedded words behind an encoder of two layers."""
    import gluonnlp as nlp

    encoder, _, _ = nlp.model.transformer.get_transformer_encoder_decoder(
        num_layers=2, num_heads=4, units=64, hidden_size=128
    )
    return trace(encoder, mx.sym.var("data"))


def transformer() -> Any:
    """Return the symbol of GluonNLP's Transformer, decoder included, as training binds it."""
    import gluonnlp as nlp

    blocks = nlp.model.transformer.get_transformer_encoder_decoder(
        num_layers=6,
        units=512,
        hidden_size=2048,
        dropout=0.1,
        max_src_length=530,
        max_tgt_length=549,
    )
    net = nlp.model.translation.NMTModel(
        vocabulary(), vocabulary(), *blocks, embed_size=512, share_embed=True, tie_weights=True
    )
    source, target = mx.sym.var("source"), mx.sym.var("target")
    lengths = [mx.sym.var(f"{name}_length") for name in ("source", "target")]
    encoded, _ = net.encoder(net.src_embed(source), None, lengths[0])
    steps = mx.sym.contrib.arange_like(source, axis=1)
    mask = mx.sym.broadcast_lesser(steps.reshape(shape=(1, -1)), lengths[0].reshape(shape=(-1, 1)))
    decoded, *_ = net.decoder(net.tgt_embed(target), [encoded, mask], lengths[1])
    symbol = net.tgt_proj(decoded)
    return symbol, trace_constants(net)


def trace_constants(net: Any) -> dict[str, np.ndarray]:
    """Return the constants of a block that is no HybridBlock."""
    found = {}
    for parameter in net.collect_params().values():
        if isinstance(parameter, mx.gluon.Constant):
            parameter.initialize()
            found[parameter.name] = parameter.data().asnumpy()
    return found


def small_lstm() -> Any:
    """Return the symbol of a language model of two layers that is fed its states."""
    import gluonnlp as nlp

    net = nlp.model.StandardRNN("lstm", WORDS, 32, 64, 2, dropout=0.0, tie_weights=False)
    return trace(net, mx.sym.var("data"), [mx.sym.var("state"), mx.sym.var("cell")])


def words_and_states(rng: np.random.Generator) -> Arrays:
    """Return two sentences, words first, and the states of two layers before them."""
    states = rng.uniform(-1, 1, (2, 2, 2, 64)).astype("float32")
    words = rng.integers(0, WORDS, (LENGTH, 2)).astype("float32")
    return {"data": words, "state": states[0], "cell": states[1]}


def language_model(name: str) -> Model:
    """Return a language model of GluonNLP's zoo."""

    def build() -> Any:
        import gluonnlp as nlp

        net, _ = nlp.model.get_model(name, vocab=vocabulary(), pretrained=False)
        return trace(net, mx.sym.var("data"))

    return Model(f"gluonnlp/{name}", LANGUAGE, build, sentences("data"), gains={"h2h": 0.5})


def standard_lstm() -> Any:
    """Return the symbol of GluonNLP's ``standard_lstm_lm_200``, whose own block has no symbol."""
    import gluonnlp as nlp

    size = {"embed_size": 200, "hidden_size": 200, "num_layers": 2}
    net = nlp.model.train.StandardRNN("lstm", WORDS, **size, dropout=0.2, tie_weights=True)
    return trace(net, mx.sym.var("data"))


def elmo() -> Any:
    """Return the symbol of ELMo, which reads words letter by letter."""
    import gluonnlp as nlp

    net, _ = nlp.model.get_model("elmo_2x1024_128_2048cnn_1xhighway", pretrained=False)
    states = net.begin_state(mx.sym.zeros, batch_size=2)
    return trace(net, mx.sym.var("data"), states)  # a mask works with arrays only


def letters(rng: np.random.Generator) -> Arrays:
    """Return words as letters."""
    return {"data": rng.integers(1, 200, (2, 8, 50)).astype("float32")}


MODELS = (
    small_bert("bert_small", None),
    small_bert("bert_small_cls", 3),
    Model(
        "gluonnlp/nlp_standard_lstm_small",
        LANGUAGE,
        small_lstm,
        words_and_states,
        gains={"h2h": 0.5},
    ),
    Model(
        "gluonnlp/transformer_en_de_512",
        TRANSLATION,
        transformer,
        sentences("source", "target", "source_length", "target_length"),
    ),
    Model(
        "gluonnlp/nlp_transformer_enc_small",
        TRANSLATION,
        small_transformer_encoder,
        lambda rng: {"data": rng.standard_normal((2, LENGTH, 64)).astype("float32")},
    ),
    Model(
        "gluonnlp/standard_lstm_lm_200",
        LANGUAGE,
        standard_lstm,
        sentences("data"),
        gains={"h2h": 0.5},
    ),
    Model(
        "gluonnlp/elmo_2x1024_128_2048cnn_1xhighway",
        LANGUAGE,
        elmo,
        letters,
        gains={"h2h": 0.5},
    ),
    language_model("awd_lstm_lm_600"),
    bert("bert_12_768_12", *BERT_INPUTS),
    bert("distilbert_6_768_12", "words", "valid_length"),
    bert("roberta_12_768_12", "words", "valid_length", vocab="Vocab"),
    bert("ernie_12_768_12", *BERT_INPUTS),
)
