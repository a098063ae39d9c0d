"""MLflow runs: how versions came about. Which versions there are is the business of `registry`."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from taxifare.model.provenance import code_tags
from taxifare.model.store import MlflowStore, RegistryError, attempting, ensure_bucket_answers
from taxifare.secrets import shown

if TYPE_CHECKING:
    from mlflow.entities import Run

PAGES_ADDRESS = "http://127.0.0.1:5000"
"""Where `taxifare mlflow` serves the pages of a store that has no server."""

_PREDICTIONS_FILE = "validation_predictions.parquet"


class Runs:
    """The runs of the experiment of one MLflow store.

    Raises (every method):
        RegistryError: MLflow cannot be reached or refuses.
    """

    def __init__(self, store: MlflowStore) -> None:
        self._store = store

    @contextmanager
    def open(self, name: str, tags: Mapping[str, str], *, grows: bool = False) -> Iterator[str]:
        """Ensures one unfinished run for these tags and yields its id; a retry goes on in the run it began.

        The run ends FINISHED, or FAILED when the body raises. A run that is active in this process becomes its parent.
        Further tags say which code was at work last.

        Args:
            name: For people.
            tags: Identify it.
            grows: Whether one that has ended well is gone on with, as a search is to which trials are added. Any other
                is never touched again: somebody may have decided on what it says.
        """
        mlflow = self._store.mlflow
        with attempting("start a run"):
            # A run is not resumed while another store's experiment is the active one, a global of MLflow's as well.
            mlflow.set_experiment(experiment_id=self._store.experiment_id)
            earlier = self._newest(
                _with_all(tags) if grows else f"attributes.status != 'FINISHED' and {_with_all(tags)}"
            )
            run = mlflow.start_run(
                run_id=None if earlier is None else earlier.info.run_id,
                experiment_id=self._store.experiment_id if earlier is None else None,
                run_name=name if earlier is None else None,
                nested=mlflow.active_run() is not None,
                tags={**tags, **code_tags()},
            )
        try:
            yield str(run.info.run_id)
        except BaseException:
            # What went wrong is the news, not that MLflow cannot be told of it; a retry goes on in the run.
            with suppress(RegistryError), attempting(f"end run {run.info.run_id}"):
                self._store.mlflow.end_run("FAILED")
            raise
        with attempting(f"end run {run.info.run_id}"):
            self._store.mlflow.end_run("FINISHED")

    def finished(self, tags: Mapping[str, str]) -> Mapping[str, float] | None:
        """Returns the metrics of the newest run with all the tags that ended well, None where there is none."""
        with attempting("search runs"):
            found = self._newest(f"attributes.status = 'FINISHED' and {_with_all(tags)}")
        return None if found is None else dict(found.data.metrics)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags on the run."""
        with attempting(f"tag run {run_id}"):
            for name, value in tags.items():
                self._store.client.set_tag(run_id, name, value)

    def log(
        self, run_id: str, *, params: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Adds params and metrics to the run; a param that a retry logs again keeps its value."""
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        with attempting(f"log to run {run_id}"):
            # MLflow refuses to change a param, and a retry that finds its version trained has another story to tell.
            known = self._store.client.get_run(run_id).data.params if params else {}
            self._store.client.log_batch(
                run_id,
                metrics=[Metric(key, float(value), now_ms, 0) for key, value in (metrics or {}).items()],
                params=[Param(key, str(value)) for key, value in (params or {}).items() if key not in known],
            )

    def log_curve(self, run_id: str, metric: str, values: Sequence[float], *, first_epoch: int = 1) -> None:
        """Adds a metric with one value an epoch to the run."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [Metric(metric, float(value), now_ms, epoch) for epoch, value in enumerate(values, start=first_epoch)]
        with attempting(f"log to run {run_id}"):
            self._store.client.log_batch(run_id, metrics=points)

    def log_figure(self, run_id: str, name: str, png: bytes) -> None:
        """Keeps a figure with the run, as `name`.png."""
        with attempting(f"log a figure to run {run_id}"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            self._store.client.log_artifact(run_id, str(path))

    def log_predictions(self, run_id: str, predictions: pd.Series) -> None:
        """Keeps predictions, indexed by trip key, with the run, so that two models can be paired trip by trip."""
        with attempting(f"log predictions to run {run_id}"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _PREDICTIONS_FILE
            predictions.rename("predicted").rename_axis("key").to_frame().to_parquet(path)
            self._store.client.log_artifact(run_id, str(path))

    def read_predictions(self, run_id: str) -> pd.Series:
        """Returns the predictions kept with the run, indexed by trip key."""
        with attempting(f"read the predictions of run {run_id}"), tempfile.TemporaryDirectory() as folder:
            try:
                path = self._store.client.download_artifacts(run_id, _PREDICTIONS_FILE, folder)
            except Exception:  # of a bucket's refusal MLflow says no more than that the path may be wrong
                ensure_bucket_answers(self._store.client.get_run(run_id).info.artifact_uri)
                raise
            with pd.option_context("mode.string_storage", "pyarrow"):
                return pd.read_parquet(path)["predicted"]

    def url(self, run_id: str) -> str:
        """Returns the address of the run's page; without a server that at which `taxifare mlflow` shows it."""
        with attempting(f"read run {run_id}"):
            experiment_id = self._store.client.get_run(run_id).info.experiment_id
        return self._page(f"experiments/{experiment_id}/runs/{run_id}")

    def comparison_url(self, run_ids: Sequence[str]) -> str | None:
        """Returns the address of the page with the runs side by side, None without a server."""
        if not self._store.is_server:
            return None
        with attempting("find the experiment"):
            experiment_id = self._store.experiment_id
        runs, experiments = (quote(json.dumps(ids)) for ids in (list(run_ids), [experiment_id]))
        return self._page(f"compare-runs?runs={runs}&experiments={experiments}")

    def pages(self) -> str:
        """Returns the address of the page with the training runs, among the pages of training and not of agents."""
        with attempting("find the experiment"):
            return self._page(f"experiments/{self._store.experiment_id}/runs?workflowType=machine_learning")

    def _newest(self, query: str) -> "Run | None":
        found: Sequence[Run] = self._store.client.search_runs([self._store.experiment_id], query, max_results=1)
        return found[0] if found else None

    def _page(self, path: str) -> str:
        root = shown(self._store.tracking_uri).rstrip("/") if self._store.is_server else PAGES_ADDRESS
        return f"{root}/#/{path}"


def _with_all(tags: Mapping[str, str]) -> str:
    """Returns the query for runs that have all the tags."""
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
