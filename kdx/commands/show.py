"""A result as a person reads it in a terminal."""

from kdx.runs.results import Result

# metric, label, whether it is a fraction that reads better in percent
SHOWN = (
    ("test/top1", "top-1 %", True),
    ("test/top5", "top-5 %", True),
    ("test/nll", "NLL", False),
    ("test/ece", "ECE %", True),
    ("fidelity/test/agreement", "agreement with the teacher %", True),
    ("fidelity/test/kl", "KL from the teacher", False),
    ("derivatives/test/rmse", "RMSE to the teacher", False),
    ("derivatives/test/jacobian_rmse", "RMSE of the Jacobian", False),
)


def show(result: Result) -> str:
    """The result's main numbers, each with its protocol, and where the rest is."""
    data = result.data
    lines = [f"{data['name']}"]
    for name, label, percent in SHOWN:
        value = result.metric(name)
        if value is not None:
            lines.append(f"  {label:<30}{100 * value:8.2f}" if percent else f"  {label:<30}{value:8.4f}")
    best = result.metric("test/top1", "best_on_test")
    epoch = result.metric("epoch", "best_on_test")
    lines.append(f"  protocol: last epoch (best on test {100 * best:.2f} at epoch {epoch:g})" if best else "")
    teacher = data["teacher"]
    if teacher is not None:
        top1 = "" if best is None else f" top-1 {100 * teacher['test/top1']:.2f} %,"
        lines.append(f"  teacher {teacher['net']}:{top1} sha256 {teacher['sha256'][:12]}")
    beside = f", beside {data['fused'] - 1} others" if "fused" in data and data["fused"] > 1 else ""
    lines.append(
        f"  {data['seconds']:.1f} s, {data['examples_per_second']:.0f} img/s{beside}, {data['device']['name']}"
    )
    lines.append(f"  {result.folder}")
    return "\n".join(line for line in lines if line)
