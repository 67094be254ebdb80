"""Networks that a config names in a list: peers, and whoever comes next."""

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
        word: "same", or an option of `model/`; with changes to it, the keys "model" (either of these words) and
            whatever the network's own file has: {model: resnet8, widths: [4, 4, 8, 8]}. A node with a `_target_`
            stands for itself.
        same: The node that "same" means.
        dataset: What networks take their facts from, such as the number of classes.

    Raises:
        UserError: There is no such network, or a value of it is missing.
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
