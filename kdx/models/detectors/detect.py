"""From scored boxes to the detections of an image."""

import torch
from torch import Tensor


@torch.no_grad()
def detections(
    boxes: Tensor, scores: Tensor, owner: Tensor, sizes: Tensor, min_score: float, overlap: float, most: int
) -> Tensor:
    """Detections after suppression within each class, as torchvision's.

    Args:
        boxes: Of each row for each class, or for all, [N, C, 4] or [N, 1, 4].
        scores: [N, C].
        owner: Position in the batch of each row's image, [N].
        sizes: Height and width of the images, [B, 2].
        min_score: Lower scores are left out.
        overlap: From which the weaker of two boxes of a class is suppressed.
        most: Detections of an image, D.

    Returns:
        Rows (x1, y1, x2, y2, score, class) by descending score, class -1 for padding, float32 [B, D, 6].

    Example:
        >>> box, score = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]), torch.tensor([[0.9]])
        >>> detections(box, score, torch.tensor([0]), torch.tensor([[3, 8]]), 0.05, 0.5, 2)
        tensor([[[ 0.0000,  0.0000,  4.0000,  3.0000,  0.9000,  0.0000],
                 [ 0.0000,  0.0000,  0.0000,  0.0000,  0.0000, -1.0000]]])
    """
    from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

    out = torch.zeros(len(sizes), most, 6, device=scores.device)
    out[..., 5] = -1
    for b, (height, width) in enumerate(sizes.tolist()):
        mine, own = (owner == b), scores[owner == b].float()
        rows, label = (own > min_score).nonzero(as_tuple=True)
        every = boxes[mine].float().expand(-1, scores.shape[1], -1)
        box, score = clip_boxes_to_image(every[rows, label], (height, width)), own[rows, label]
        good = remove_small_boxes(box, 1e-2)
        box, score, label = box[good], score[good], label[good]
        good = batched_nms(box, score, label, overlap)[:most]
        out[b, : len(good)] = torch.cat([box[good], score[good, None], label[good, None].float()], 1)
    return out
