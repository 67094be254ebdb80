"""Builds encoders of the library transformers, with the weights of a folder, a package or a name of the hub."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from kdx.core.errors import UserError, reason, shown, some
from kdx.core.pretrained import PACKAGE, TOKENIZER, find_file, tokenizer_file
from kdx.core.ranges import PartialFraction, PositiveInt
from kdx.models.text.attention import find_projections
from kdx.models.text.encoder import Head, Pooling, TextEncoder
from kdx.models.text.start import start

CONFIG = "config.json"
WEIGHTS = "*model*.safetensors"  # one file, or several parts


def transformers_model(
    init: str | None,
    pretrained: bool,
    architecture: str,
    options: Mapping[str, Any],
    layers: Sequence[PositiveInt] | None,
    embeddings: Literal["copy", "svd", "random"],
    dropout: PartialFraction,
    attention_dropout: PartialFraction,
    pooling: Pooling,
    head: Head,
    head_dropout: PartialFraction,
    num_classes: PositiveInt,
    tokenizer: str,
) -> TextEncoder:
    """Build an encoder of text with a new classifier.

    Args:
        init: Pretrained encoder: a folder with `config.json` and weights, `package:NAME`, or a name of the hub. None
            builds `architecture` with random weights.
        pretrained: Whether to load its weights; else only its configuration is used.
        architecture: Name of the library's architecture, such as "bert", where `init` is None.
        options: Changes of its configuration, such as `{hidden_size: 192}`.
        layers: Layers of `init`, from 1, that the layers start from, in order; their number is the depth. `[]` leaves
            all layers random, None takes all.
        embeddings: How the embeddings start: "copy", "svd" (projected to the width on their leading right singular
            vectors), or "random".
        dropout: Dropout after embeddings, attention and feed-forward layers.
        attention_dropout: Dropout of the attention probabilities.
        pooling, head, head_dropout: As in `TextEncoder`.
        num_classes: Number of outputs.
        tokenizer: The data set's tokenizer, which sets the size of the vocabulary.

    Raises:
        UserError: The library or the weights are missing, or sizes or tokenizers do not fit.

    References:
        Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", 2020. https://arxiv.org/abs/1910.03771
        Sanh, Debut, Chaumond, Wolf, "DistilBERT", 2019 (students of chosen layers). https://arxiv.org/abs/1910.01108
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError("encoders of text need transformers, which is not installed: pip install 'kdx[text]'")
    words = tokenizer_file(tokenizer, "dataset.tokenizer")
    loads = init is not None and pretrained
    if init is not None and loads and embeddings != "random":
        _same_tokenizer(init, tokenizer, words.fingerprint)
    changes = dict(options) | ({"num_hidden_layers": len(layers)} if layers else {})
    config = _config(init, architecture, changes)
    if init is not None:
        _check_layers(_config(init, architecture, {}), config, layers, embeddings)
    config.vocab_size = words.vocab_size
    for name in ("hidden_dropout_prob", "dropout", "hidden_dropout"):
        if hasattr(config, name):
            setattr(config, name, dropout)
    for name in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, attention_dropout)
    net = _from_config(config)
    blocks = _layers(net, config.num_hidden_layers)
    if init is not None and loads:
        source, state = _pretrained(init)
        start(net, blocks[0], state, source.num_hidden_layers, layers, embeddings)
    heads = int(config.num_attention_heads)
    projections = find_projections(config.model_type, blocks[1][0], heads)
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and config.model_type in ("roberta", "xlm-roberta", "camembert"):
        most -= 2  # their positions begin after the padding id
    return TextEncoder(net, blocks[1], projections, num_classes, pooling, head, head_dropout, most, words.fingerprint)


def _same_tokenizer(init: str, tokenizer: str, fingerprint: str) -> None:
    """Raise UserError if the weights have a tokenizer of their own that differs from the data set's."""
    try:
        find_file(init, TOKENIZER, "init")
    except UserError:
        return  # a folder of weights alone
    if tokenizer_file(init, "init").fingerprint != fingerprint:
        raise UserError(
            f"init={shown(init)} was trained with another tokenizer than dataset.tokenizer={shown(tokenizer)}; set "
            f"dataset.tokenizer={shown(init)}, or embeddings=random with layers=[]"
        )


def _check_layers(source: Any, config: Any, layers: Sequence[int] | None, embeddings: str) -> None:
    """Raise UserError for weights that a student of another size or depth cannot start from."""
    depth = source.num_hidden_layers
    if wrong := [k for k in layers or () if k > depth]:
        raise UserError(f"layers has {wrong[0]}, and the pretrained encoder has the layers 1 to {depth}")
    if layers != [] and config.num_hidden_layers != (len(layers) if layers else depth):
        raise UserError("options.num_hidden_layers differs from the layers that the student starts from; see layers")
    sizes = ("hidden_size", "intermediate_size", "hidden_dim")  # DistilBERT has the last instead of the second
    changed = [name for name in sizes if getattr(source, name, None) != getattr(config, name, None)]
    if changed and (layers != [] or (embeddings == "copy" and changed[0] == "hidden_size")):
        raise UserError(
            f"options.{changed[0]}: the pretrained encoder has {getattr(source, changed[0])}; a student of another "
            "size needs layers=[] and embeddings=svd or random"
        )


def _config(init: str | None, architecture: str, changes: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if init is None:
        if architecture not in CONFIG_MAPPING:
            raise UserError(f"architecture={shown(architecture)}: transformers has no such architecture")
        config = AutoConfig.for_model(architecture)
    else:
        path = find_file(init, CONFIG, "init")
        try:
            config = AutoConfig.from_pretrained(path.parent)
        except Exception as error:  # a damaged file, an unknown architecture: many types
            raise UserError(
                f"init={shown(init)}: {path} is not the config of an encoder ({reason(error)[:120]})"
            ) from error
    # some libraries name the same number otherwise; attribute maps of the config translate
    if strange := [name for name in changes if not hasattr(config, name)]:
        raise UserError(f"options.{strange[0]}: a {config.model_type} has no such option; see its config.json")
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def _from_config(config: Any) -> nn.Module:
    from transformers import AutoModel

    with _quiet():
        try:
            return AutoModel.from_config(config, add_pooling_layer=False)
        except TypeError:  # architectures without a pooling layer
            return AutoModel.from_config(config)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"options: {reason(error)}") from error


def _pretrained(init: str) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights of an encoder, by name."""
    from transformers import AutoModel

    folder = find_file(init, CONFIG, "init").parent
    is_local = init.startswith(PACKAGE) or Path(init).expanduser().is_dir()
    # a repository of the hub that is on this machine is read from there, without a request
    given = folder if is_local or any(folder.glob(WEIGHTS)) else init
    with _quiet():
        try:
            net, told = AutoModel.from_pretrained(given, output_loading_info=True)
        except Exception as error:  # damaged or missing weights, no network: many types
            raise UserError(f"init={shown(init)}: its weights cannot be loaded ({reason(error)[:150]})") from error
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(f"init={shown(init)} lacks weights of its own config: {some(missing)}")
    return net.config, net.state_dict()


def _layers(net: nn.Module, depth: int) -> tuple[str, nn.ModuleList]:
    """Path and modules of the encoder's layers."""
    for path, module in net.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return path, module
    raise UserError(f"a {type(net).__name__} has no list of {depth} layers; choose another architecture")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and reports, within the block."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
