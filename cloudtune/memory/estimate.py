"""The estimate: what one process needs at the moment when it needs most, term by term."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from cloudtune.memory import sharding, states
from cloudtune.memory.activations import activations
from cloudtune.memory.architecture import Architecture
from cloudtune.memory.logits import backward_logits, forward_logits
from cloudtune.memory.training import Training, precision_of

#: Measured peaks lie within this share of an estimate: see "Memory estimates" in docs/benchmarks.md.
BAND = 0.2
#: The terms, in the order in which they are shown.
TERMS = (
    "weights",
    "gradients",
    "optimizer states",
    "activations",
    "logits and loss",
    "gathered weights",
    "buckets",
    "step",
    "context",
)


@attrs.frozen(kw_only=True)
class Estimate:
    """What one process of a training needs, in bytes.

    ``moment`` is when it needs most: ``loss`` (the end of the forward pass), ``backward`` (its first layer), ``end``
    (its last layer, when most gradients are there) or ``step`` (the optimizer's). ``terms`` add up to the peak.
    """

    model: Architecture
    training: Training
    moment: str
    terms: Mapping[str, float]

    @property
    def total(self) -> float:
        """The peak."""
        return sum(self.terms.values())

    @property
    def least(self) -> float:
        """What is needed in any case: the peak less the error band."""
        return self.total * (1 - BAND)

    @property
    def most(self) -> float:
        """What suffices: the peak and the error band."""
        return self.total * (1 + BAND)


def estimate(model: Architecture, training: Training) -> Estimate:
    """Return what a process needs at most, of the four moments at which its memory can be fullest.

    Between them it changes evenly: layer by layer, activations go and gradients come.

    Raises:
        UsageError: nothing is known of the optimizer.

    >>> from cloudtune.memory.families import architecture
    >>> from cloudtune.memory.models import known_config
    >>> llama = architecture(known_config("meta-llama/Llama-2-7b-hf"))
    >>> round(estimate(llama, Training(method="lora")).total / 2**30, 1)
    15.7
    """
    moments = _moments(model, training)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    terms = {term: moments[moment].get(term, 0.0) for term in TERMS}
    return Estimate(model=model, training=training, moment=moment, terms=terms)


def _moments(model: Architecture, training: Training) -> dict[str, dict[str, float]]:
    acts, precision = activations(model, training), precision_of(training)
    always = {
        "weights": states.weights(model, training),
        "optimizer states": states.optimizer_states(model, training),
        "buckets": sharding.communication(model, training),
        "context": sharding.overhead(training),
    }
    all_gradients = states.gradients(model, training)
    # gradients of earlier passes stay until the step
    kept = all_gradients if training.accumulation > 1 else 0.0
    head = 0.0
    if training.method == "full":
        head = (model.head or model.embeddings) * precision.gradient / states.gradient_shards(training)
        head /= training.tensor_parallel
    rest = _late(model, training)
    # where embedding and output projection are one, their gradients meet at the end
    meeting = model.embeddings * precision.gradient if model.tied and training.method == "full" else 0.0
    whole = {"gathered weights": sharding.gathered_forward(model, training), "gradients": kept}
    loss = max(
        {"activations": acts.held + acts.casts, "logits and loss": forward_logits(model, training), **whole},
        {"activations": acts.held, "logits and loss": backward_logits(model, training), **whole},
        key=lambda terms: sum(terms.values()),
    )
    first = {
        "activations": acts.held + acts.layer,
        "gradients": max(kept, head),
        "gathered weights": sharding.gathered_backward(model, training, end=False),
    }
    gathered = sharding.gathered_backward(model, training, end=True)
    end = max(
        {"activations": acts.last, "gradients": max(kept, all_gradients - rest), "gathered weights": gathered},
        {"gradients": all_gradients + meeting, "gathered weights": gathered},
        key=lambda terms: sum(terms.values()),
    )
    step = {"gradients": all_gradients, "step": states.step_work(model, training)}
    named = {"loss": loss, "backward": first, "end": end, "step": step}
    return {name: {**always, **terms} for name, terms in named.items()}


def _late(model: Architecture, training: Training) -> float:
    """Return the gradients that are not there yet in the last layer's backward pass: its own and the embedding's."""
    if training.method != "full":
        return 0.0
    own = min(layer.parameters for layer in model.layers) + (0 if model.tied else model.embeddings)
    each = precision_of(training).gradient / training.tensor_parallel
    return own * each / states.gradient_shards(training)
