"""`lstm-serve --explain MODEL`: what a model could be served with here, measured now, and what `auto` would take."""

from __future__ import annotations

from serving.errors import StartupError
from serving.loading import trials
from serving.loading.order import AUTO, measured
from serving.loading.ranking import table
from serving.loading.trials import Trials, request_for
from serving.repository import model_config
from serving.repository.repositories import Repositories
from serving.settings import Settings


def explain(settings: Settings, name: str) -> str:
    """What each version of a model that would be served can be served with, measured now, and which of them `auto` takes.

    Raises `StartupError` when there is no such model or nothing to measure it by.
    """
    repositories = Repositories(settings.model_repository)
    if name not in repositories.models():
        raise StartupError(
            f"there is no model '{name}' in {repositories}; there are {', '.join(repositories.models())}"
        )
    repository = repositories.holding(name)
    config = model_config.parse(repository.config_text(name), name)
    folders = {folder.number: folder for folder in repository.versions(name)}
    told = []
    for number in config.versions(list(folders)):
        if not folders[number].described:
            raise StartupError(
                f"{folders[number].path} has no golden samples: nothing proves that its files compute the same"
            )
        found = measured(config, settings.defaults, folders[number])
        chosen = next((one.candidate for one in found if not one.failed), None)
        if chosen is None:
            raise StartupError(f"nothing here can serve {name} version {number}\n{table(found, None)}")
        asked = config.backend or settings.backend
        note = "" if asked == AUTO else f"\n(--backend or config.pbtxt say {asked}: nothing is chosen by these figures)"
        request = request_for(repository, name, config, folders[number], settings.defaults)
        if said := trials.told(Trials(settings.trial), request, chosen):
            note += f"\n{said}"
        told.append(f"{name} version {number}, best first for {settings.optimize_for}:\n{table(found, chosen)}{note}")
    return "\n\n".join(told)
