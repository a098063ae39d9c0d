"""What workers of a replay are given: one training after another, on networks that are kept compiled.

Compiling a network costs as much as renewing it. So a process keeps one network object for all models that descend from
the same random weights, and exchanges their states; what that learns, its twin learns (`fitting.twin_of`). The
process may outlive the replay, and see others.
"""

import gc
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from taxifare.model.exposure import Exposure
from taxifare.model.fitting import Matrix, quote, restore
from taxifare.replay.results import Model
from taxifare.replay.store import TrainingStore
from taxifare.settings import ChallengerName, TrainingSettings
from taxifare.training.base_model import fit_base
from taxifare.training.base_trips import BaseTrips
from taxifare.training.challengers import Challenger, Lesson, Parent, renewed, warm
from taxifare.trips.editions import BASE

if TYPE_CHECKING:
    import keras

Work: TypeAlias = ChallengerName | Literal["base", "retraining"]
"""What is done: the first fit, one of the challengers, or the retraining of a promoted model on its whole month."""

LearnedFrom: TypeAlias = Lesson | Path
"""What is learned from: a lesson, or the file of the base trips."""

_NETWORKS_KEPT = 3
"""Networks that a process keeps compiled."""

_networks: OrderedDict[tuple[Path, str], "keras.Model"] = OrderedDict()
"""The networks of this process by lineage, the one that was not needed for longest first. Lineages have the name of
their first training, which says nothing of settings and code; the folder of the store does."""

_validation: dict[str, Matrix] = {}
"""The trips that this process predicts, read once; those of one replay."""


@dataclass(frozen=True)
class Assignment:
    """A training to be done.

    Attributes:
        key: Changes when what it depends on does.
        work: What is done.
        subject: The month, or `base`.
        parent: The model that it starts from, or that is taken as it is.
    """

    key: str
    work: Work
    subject: str
    parent: Model | None = None

    @property
    def model_name(self) -> str:
        """What people call the model that comes of it."""
        if self.work == BASE:
            return BASE
        way = "whole month" if self.work == "retraining" else self.work
        return f"{self.subject} {way} {self.key[:4]}"


@dataclass(frozen=True)
class _StoredParent(Parent):
    """A model to start from; its network is made ready when it is asked for."""

    model: Model
    store: TrainingStore

    @property
    def version(self) -> str:
        """Its name."""
        return self.model.name

    @property
    def exposure(self) -> tuple[Exposure, ...]:
        """What it has been trained on."""
        return self.model.exposure

    @property
    def network(self) -> "keras.Model":
        """The network of its lineage, in its state."""
        lineage = (self.store.folder, self.model.lineage)
        if lineage not in _networks:
            _keep(lineage, self.store.network(self.model.lineage))
        _networks.move_to_end(lineage)
        restore(_networks[lineage], self.store.state(self.model.key))
        return _networks[lineage]


def carry_out(
    store: TrainingStore, assignment: Assignment, learned_from: LearnedFrom, settings: TrainingSettings
) -> None:
    """Ensures that a training is done and that what came of it is in the store.

    Raises:
        TrainingError: It gave no usable network.
    """
    if store.has_state(assignment.key):  # what is missing are the predictions of these trips
        model = store.result(assignment.key).model
        _predict(store, model, _StoredParent(model, store).network)
        return
    parent = None if assignment.parent is None else _StoredParent(assignment.parent, store)
    challenger = _challenger(assignment.work, learned_from, parent, settings)
    if challenger.version is not None and assignment.parent is not None:
        model = assignment.parent
    else:
        model = _model(assignment, challenger)
        is_new = model.lineage == assignment.key
        if is_new:
            _keep((store.folder, model.lineage), challenger.network)
        store.put_network(model.key, challenger.network, is_new=is_new)
        _predict(store, model, challenger.network)
    store.put(assignment.key, challenger, model)


def price(store: TrainingStore, model: Model, month: str, features: Matrix) -> None:
    """Ensures that what the model predicts of a month's training trips is in the store."""
    store.put_prices(model.key, month, quote(_StoredParent(model, store).network, features)[:, 0])


def _challenger(work: Work, learned_from: LearnedFrom, parent: Parent | None, settings: TrainingSettings) -> Challenger:
    """Returns what comes of the work."""
    if isinstance(learned_from, Path):
        return fit_base(BaseTrips(learned_from.open("rb")), settings)
    if work == "base":
        raise ValueError("base: expected the base trips, received a lesson")
    if work == "retraining":
        if parent is None:
            raise ValueError("retraining: expected a model to start from, received none")
        return replace(warm(learned_from, parent, settings), name=work)
    return renewed(work, learned_from, parent, parent, settings)


def _model(assignment: Assignment, challenger: Challenger) -> Model:
    """Returns the model that has come of an assignment; one from random weights begins a lineage."""
    is_descendant = assignment.parent is not None and challenger.parent_version is not None
    return Model(
        key=assignment.key,
        name=assignment.model_name,
        subject=assignment.subject,
        lineage=assignment.parent.lineage if assignment.parent is not None and is_descendant else assignment.key,
        parent=challenger.parent_version,
        exposure=challenger.exposure,
        correction_share=challenger.correction_share,
        seconds=challenger.seconds,
    )


def _predict(store: TrainingStore, model: Model, network: "keras.Model") -> None:
    """Ensures that what the model predicts is there."""
    if store.rows not in _validation:
        _validation.clear()
        _validation[store.rows] = store.validation()
    store.put_quotes(model.key, quote(network, _validation[store.rows]))


def _keep(lineage: tuple[Path, str], network: "keras.Model") -> None:
    """Keeps a network for its descendants; those not needed for longest make room."""
    _networks[lineage] = network
    while len(_networks) > _NETWORKS_KEPT:
        _networks.popitem(last=False)
        gc.collect()
