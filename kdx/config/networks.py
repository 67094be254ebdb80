"""Networks that a config names in a list, such as peers and members of an ensemble."""

from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdx.config.compose import Config
from kdx.config.layout import config_file, options
from kdx.core.errors import UserError, did_you_mean

SAME = "same"


def network_node(word: Any, same: Config, dataset: Config) -> Config:
    """The node of a network.

    Args:
        word: "same", an option of `model/`, or a mapping with one of these under "model" and changed keys of the
            network's file: {model: resnet8, widths: [4, 4, 8, 8]}. A node with a `_target_` is returned unchanged.
        same: The node that "same" stands for.
        dataset: The config of the data set, for interpolations such as the number of classes.

    Raises:
        UserError: The network does not exist, or a value is missing.
    """
    changes = {}
    if isinstance(word, dict):
        if "_target_" in word:
            return word
        if "model" not in word:
            raise UserError(f"name the network under the key 'model'; found the keys {', '.join(map(str, word))}")
        changes = {key: value for key, value in word.items() if key != "model"}
        word = word["model"]
    if word == SAME:
        return {**same, **changes}
    known = options("model")
    if word not in known:
        raise UserError(f"there is no network '{word}'{did_you_mean(str(word), [SAME, *known])}")
    file = OmegaConf.load(config_file("model", word))
    try:
        whole = OmegaConf.create({"dataset": dataset, "net": OmegaConf.merge(file, changes)})
        resolved = OmegaConf.to_container(whole, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    assert isinstance(resolved, dict)
    return resolved["net"]
