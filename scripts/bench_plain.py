"""The plain baseline: eager float32 in NCHW, a teacher forward each step, and torchvision's PIL loader in the process.

`python scripts/bench_plain.py` runs one step, to measure start-up and memory. With a pair, a number of threads and a
device, it runs a step for each line of input and prints its seconds. It is a separate process, so that settings of the
benchmark's process, such as malloc's, do not affect it.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
SIZE, CLASSES, BATCH = 6400, 100, 64


class Pictures(torch.utils.data.Dataset):
    """CIFAR-shaped images with the transforms of the CIFAR literature, applied per image."""

    def __init__(self) -> None:
        from torchvision import transforms

        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (SIZE, 32, 32, 3), dtype=torch.uint8, generator=generator).numpy()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), index % CLASSES, index


def batches() -> Iterator[list[Tensor]]:
    """Yield batches forever, without worker processes."""
    loader = torch.utils.data.DataLoader(Pictures(), BATCH, shuffle=True, num_workers=0)
    while True:
        yield from loader


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The usual KD term, including the factor T^2."""
    log_q, p = F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


def accuracy(logits: Tensor, labels: Tensor) -> list[float]:
    """Top-1 and top-5 accuracy in percent, synchronised at each step."""
    right = logits.topk(5, 1).indices.eq(labels[:, None])
    return [100 * right[:, :k].any(1).float().mean().item() for k in (1, 5)]


def step_of(teacher: nn.Module, student: nn.Module, device: str) -> Callable[[Tensor, Tensor], tuple[float, ...]]:
    """A KD step on images and labels that returns five numbers for the log; networks return `Outputs`."""
    teacher.to(device).eval()
    student.to(device).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step(images: Tensor, labels: Tensor) -> tuple[float, ...]:
        images, labels = images.to(device), labels.to(device)
        logits = student(images).logits
        with torch.no_grad():
            taught = teacher(images).logits
        ce, kd = F.cross_entropy(logits, labels), divergence(logits, taught, 4.0)
        loss = 0.1 * ce + 0.9 * kd
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item(), ce.item(), kd.item(), *accuracy(logits, labels)

    return step


def plain(teacher: nn.Module, student: nn.Module, device: str) -> Iterator[None]:
    """Run KD steps forever."""
    step, sums = step_of(teacher, student, device), [0.0] * 5
    for images, labels, _ in batches():
        sums = [total + value for total, value in zip(sums, step(images, labels), strict=True)]
        yield


def clock(device: str) -> float:
    """CPU seconds, or wall seconds after synchronising the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def networks_of(pair: str) -> tuple[nn.Module, nn.Module]:
    """Teacher and student of a pair "teacher:student" with random weights."""
    from kdx.config.compose import compose
    from kdx.runs.build import build_network

    names = pair.split(":")
    shape = ["dataset=synthetic", "dataset.input_shape=[3,32,32]", f"dataset.num_classes={CLASSES}"]
    config = compose([*shape, f"teacher={names[0]}", f"student={names[1]}"]).config
    return build_network(config["teacher"]["net"], 1), build_network(config["student"]["net"], 0)


def serve(pair: str, threads: int, device: str) -> None:
    """Run a step for each line of standard input and print its seconds."""
    torch.set_num_threads(threads)
    steps = plain(*networks_of(pair), device)
    for _ in sys.stdin:
        began = clock(device)
        next(steps)
        print(clock(device) - began, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        from kdx.models.cifar.resnet import ResNet

        torch.set_num_threads(1)
        teacher, student = ResNet(56, [16, 16, 32, 64], CLASSES, 3), ResNet(20, [16, 16, 32, 64], CLASSES, 3)
        next(plain(teacher, student, "cpu"))
