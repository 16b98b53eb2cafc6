"""`lstm-serve --explain MODEL`: what a model could be served with here, measured now, and what `auto` makes of it."""

from __future__ import annotations

from serving.errors import StartupError
from serving.loading import ranking, trials
from serving.loading.order import AUTO, RULE, Order, measured, order, ways
from serving.loading.ranking import table
from serving.loading.trials import Trials, request_for
from serving.repository import model_config
from serving.repository.repositories import Repositories
from serving.settings import Settings


def explain(settings: Settings, name: str) -> str:
    """What each version of a model that would be served can be served with, measured now, and what `auto` takes, and why.

    What was measured is kept, so that a start from now on knows it. Raises `StartupError` when there is no such model or
    nothing to measure it by.
    """
    repositories = Repositories(settings.model_repository)
    if name not in repositories.models():
        raise StartupError(
            f"there is no model '{name}' in {repositories}; there are {', '.join(repositories.models())}"
        )
    repository, known = repositories.holding(name), settings.measurements()
    config = model_config.parse(repository.config_text(name), name)
    folders = {folder.number: folder for folder in repository.versions(name)}
    told = []
    for number in config.versions(list(folders)):
        folder = folders[number]
        if not folder.described:
            raise StartupError(f"{folder.path} has no golden samples: nothing proves that its files compute the same")
        before = order(config, settings.defaults, folder, known.find)
        every = ways(config, settings.defaults, folder)
        key = known.key(folder, every)
        found = measured(every, settings.defaults, folder)
        if all(one.failed for one in found):
            raise StartupError(f"nothing here can serve {name} version {number}\n{table(found, None)}")
        if not known.keep(folder, every, found, key):
            raise StartupError(f"the files of {folder.path} were changed while they were measured: ask again")
        now = order(config, settings.defaults, folder, known.find)
        serves = now.first[0]
        notes = [_why(before, now, config.backend or settings.backend)]
        if said := trials.told(
            Trials(settings.trial), request_for(repository, name, config, folder, settings.defaults), serves
        ):
            notes.append(said)
        title = f"{name} version {number}, best first for {settings.optimize_for}:"
        told.append("\n".join([title, table(found, serves), *notes]))
    return "\n\n".join(told)


def _why(before: Order, now: Order, asked: str) -> str:
    """What serves, and whether that was known before this was measured."""
    if asked != AUTO:
        return f"(--backend or config.pbtxt say {asked}: nothing is chosen by these figures)"
    was = "not measured before: by rule" if before.how == RULE else "measured before"
    if not before.possible:
        was = before.how
    margins = f"{ranking.BETTER:.0%}, or {ranking.MUCH_BETTER:.0%} with another framework or more threads"
    return (
        f"a start until now served {before.first[0]} ({was}); from now on {now.first[0]} ({now.how}), which gives way to what "
        f"is better by more than {margins}"
    )
