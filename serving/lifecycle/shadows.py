"""Starts and ends the shadows that configurations ask for. A shadow that cannot run harms nobody."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

from serving.batching.aside import Aside
from serving.clock import SYSTEM, Clock
from serving.errors import RepositoryError
from serving.lifecycle import load_failures
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.shadow import Shadow, fits
from serving.lifecycle.versions import ModelEntry
from serving.loading import loader
from serving.loading.measurements import Known
from serving.loading.order import ServerDefaults
from serving.loading.request import LoadRequest, OnTrial
from serving.machine import priority
from serving.repository.folders import Repository, VersionFolder
from serving.repository.operator_config import OperatorConfig
from serving.repository.routes import Target
from serving.telemetry.counters import ModelMetrics

log = logging.getLogger(__name__)


class Shadows:
    """Loads shadows into `manager`, each with a model, a queue and a worker of its own."""

    def __init__(
        self,
        manager: ModelManager,
        defaults: ServerDefaults,
        known: Known | None = None,
        trial: OnTrial | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._manager = manager
        self._defaults = defaults
        self._known = known
        self._trial = trial
        self._clock = clock

    def start(
        self,
        model: ModelEntry,
        repository: Repository,
        folders: Mapping[int, VersionFolder],
        config: OperatorConfig,
    ) -> None:
        """Starts the shadow that the configuration asks for, in place of the one that ran before. It never fails the model."""
        target, followed = config.routes.shadow, model.followed()
        if target is None or not followed:
            self.end(model)
            return
        number = target.version or int(followed[0].version)
        try:
            if any(each.state_layout for each in followed):
                raise RepositoryError(
                    "it would have to keep a state of its own for each sequence of a stateful model, which shadows do not; "
                    "compare versions by a canary, which gets whole sequences"
                )
            loaded = loader.load(self._request(model, repository, folders[number], config, target))
            if misfit := next((why for each in followed if (why := fits(loaded.model.spec, each.spec))), ""):
                loaded.model.close()
                raise RepositoryError(misfit)
        except Exception as error:  # noqa: BLE001 - a shadow harms nobody
            log.error("the shadow %s does not run: %s", target, error, extra={"fields": {"model": model.name}})
            self._manager.follow(model, None, f"its shadow {target} does not run: {error}")
            self._manager.failures.count(model.name, str(number), load_failures.SHADOW)
            return
        name = f"{loaded.model.version}/{loaded.model.candidate}"
        share = config.routes.shadow_share
        counts = model.shadow_counts(name)
        self._manager.follow(model, Shadow(loaded.model, share, name, counts, followed, self._clock))
        log.info("shadowed", extra={"fields": {"model": model.name, "by": name, "share": share}})

    def end(self, model: ModelEntry) -> None:
        """Nothing follows the model any more."""
        self._manager.follow(model, None)

    def _request(
        self,
        model: ModelEntry,
        repository: Repository,
        folder: VersionFolder,
        config: OperatorConfig,
        target: Target,
    ) -> LoadRequest:
        defaults = dataclasses.replace(
            self._defaults,
            backend=target.backend or self._defaults.backend,
            device=target.device or self._defaults.device,
            fallback="none",
        )
        return LoadRequest(
            name=model.name,
            folder=folder,
            config=config.for_shadow(),
            labels={},
            defaults=defaults,
            metrics=lambda backend: ModelMetrics(),
            repository=repository,
            known=self._known,
            trial=self._trial,
            wrap=lambda backend: Aside(backend, self._clock, steps=priority.SHADOWS, always=True),
            clock=self._clock,
        )
