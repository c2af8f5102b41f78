"""Prove that an image can do what a job on Trainium needs: the pinned packages, the trainer, a compiled step.

Exits with 0 and one line a proof, or with the traceback of what is broken. ``--no-device`` leaves out what needs a
Neuron core; ``--no-stack``, too, what needs the Neuron stack. Needs no network and some minutes for compiling.
"""

import argparse
import importlib
import importlib.metadata
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
#: Packages of the Neuron stack itself, which no public index has.
STACK = {"torch", "torch-neuronx", "neuronx-cc", "neuronx_distributed", "libneuronxla"}


def pins() -> dict[str, str]:
    """Return the exact versions that the image is to have."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def check_versions(*, stack: bool) -> None:
    """Hold what is installed against the pins."""
    wrong = []
    for name, wanted in pins().items():
        if name in STACK and not stack:
            continue
        found = importlib.metadata.version(name)
        if found.partition("+")[0] != wanted:
            wrong.append(f"{name} {found}, not {wanted}")
    assert not wrong, "; ".join(wrong)
    print("has the pinned packages")


def check_trainer() -> None:
    """Import what the recipe sft_neuron uses."""
    for module, name in (("optimum.neuron", "NeuronSFTTrainer"), ("optimum.neuron", "NeuronSFTConfig")):
        getattr(importlib.import_module(module), name)
    importlib.import_module("optimum.neuron.models.training")
    print("imports the trainer of optimum-neuron")


def check_step() -> None:
    """Compile and compute one step of training on a Neuron core."""
    torch = importlib.import_module("torch")
    model = importlib.import_module("torch_xla.core.xla_model")
    device = model.xla_device()
    layer = torch.nn.Linear(64, 64).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    rows = torch.randn(8, 64).to(device)
    losses = []
    for _ in range(3):
        loss = layer(rows).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.mark_step()
        losses.append(float(loss.detach().cpu()))
    assert losses[-1] < losses[0], losses
    print(f"trains on {device}: loss {losses[0]:.4f} -> {losses[-1]:.4f}")


def main() -> None:
    """Run the proofs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-device", action="store_true")
    parser.add_argument("--no-stack", action="store_true")
    given = parser.parse_args()
    check_versions(stack=not given.no_stack)
    if given.no_stack:
        return
    check_trainer()
    if not given.no_device:
        check_step()


if __name__ == "__main__":
    main()
