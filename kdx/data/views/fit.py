"""Whether an augmentation and a set of examples fit each other."""

import numpy as np

from kdx.data.scenes import SceneSet
from kdx.data.sets import DataError, ExampleSet, ImageSet, VectorSet
from kdx.data.views.augment import PLAIN, Augmentation
from kdx.data.views.boxes import BoxAugmentation


def check_fit(augmentation: Augmentation, data: ExampleSet) -> None:
    """Raise DataError if an augmentation cannot change these examples.

    Args:
        augmentation: Of a run.
        data: Its training examples.
    """
    if augmentation.needs_bytes and data.dtype != np.uint8:
        raise DataError(
            f"augmentation.policy and ResizedCrop work on 8-bit images, and this data set gives {data.dtype}; "
            "choose augmentation=none, shift or standard"
        )
    if isinstance(data, SceneSet):
        if augmentation != PLAIN and not isinstance(augmentation, BoxAugmentation):
            raise DataError("this augmentation moves pixels and not boxes; choose augmentation=boxes or none")
    elif isinstance(augmentation, BoxAugmentation):
        raise DataError("augmentation=boxes needs images with boxes; choose augmentation=standard or none")
    if not isinstance(data, ImageSet) and augmentation != PLAIN:
        what = "vectors" if isinstance(data, VectorSet) else "texts"
        raise DataError(f"an augmentation changes images, and these inputs are {what}: augmentation=none")
