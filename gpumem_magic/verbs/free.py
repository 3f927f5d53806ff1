"""``%gpumem free``: lets go of what keeps device memory alive, and measures what that gave back."""

from __future__ import annotations

import dataclasses
import functools
import gc
import re
from typing import TYPE_CHECKING, Any

from gpumem_magic.capture import forget
from gpumem_magic.model.holders import HeldBy
from gpumem_magic.model.release import WORDS, Release, Released
from gpumem_magic.model.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpumem_magic.analysis.byte_ledger import ByteLedger
    from gpumem_magic.capture.forget import Target
    from gpumem_magic.model.holders import Holder, Holders, Name
    from gpumem_magic.session import Session

_ALL_SAFE = ("traceback", "cycles", "cache")
"""What no later cell can miss, because no name of the notebook leads to it."""

_OUTPUT = re.compile(r"Out\[(\d+)\]|_(\d+)")
_NAMED = 200  # memories for which the names that keep them are looked for
_NAMES = 64  # of each class, per memory
_MOST_OTHERS = 3


class CannotFreeError(ValueError):
    """Nothing was freed; the message says why, and what to write instead."""


def free(
    session: Session,
    words: Iterable[str],
    *,
    variables: Iterable[str] = (),
    shell: Any = None,
    dry_run: bool = False,
) -> Release:
    """Let go of ``words`` and measure it.

    Args:
        session: that tracks.
        words: ``Out[7]``, ``out``, ``traceback``, ``cycles``, ``cache``, ``all-safe`` or variables.
        variables: variables that are called like one of the words above.
        shell: IPython's; None for a script, whose variables are those of ``__main__``.
        dry_run: only predict.

    Raises:
        CannotFreeError: a word means nothing here, or the last address of raw driver memory would go.
        RuntimeError: tracking is off.
    """
    targets = _targets(words, variables, shell)
    plan = _Plan.made(session, targets, shell)
    if dry_run:
        rows = [plan.predicted(target, session) for target in targets]
        return Release(rows=tuple(rows), cached_bytes=session.ledger().returnable_bytes, is_dry_run=True)
    rows = [_released(session, target, plan) for target in targets]
    return Release(rows=tuple(rows), cached_bytes=session.ledger().returnable_bytes)


# ---- what is meant --------------------------------------------------------------------------------------------------


def _targets(words: Iterable[str], variables: Iterable[str], shell: Any) -> list[Target]:
    """In the order in which they go: what is garbage already first, caches last, when all they will get is in them."""
    found: dict[str, Target] = {}
    for word in words:
        if type(word) is not str:
            raise CannotFreeError("Name what to free, as text: an object cannot be freed as long as it is an argument.")
        for each in _ALL_SAFE if word == "all-safe" else (word,):
            target = _target(each, shell)
            found.setdefault(target.name, target)
    for name in variables:
        found[f"variable {name}"] = _variable(name, shell)
    if not found:
        raise CannotFreeError(f"Say what to free: {', '.join(WORDS)}, Out[n], or a variable.")
    return sorted(found.values(), key=_turn)


def _turn(target: Target) -> int:
    return 0 if isinstance(target, forget.Cycles) else 2 if isinstance(target, forget.Caches) else 1


def _target(word: str, shell: Any) -> Target:
    if word == "traceback":
        return forget.LastTraceback(shell)
    if word == "cycles":
        return forget.Cycles()
    if word == "cache":
        return forget.Caches()
    known = forget.outputs(shell)
    if word == "out" and shell is None:
        raise CannotFreeError("There are no outputs here: this is no notebook.")
    if word == "out":
        return forget.Outputs("out", tuple(known), shell)
    numbered = _OUTPUT.fullmatch(word)
    if numbered is not None:
        number = int(numbered[1] or numbered[2])
        if number not in known:
            there = ", ".join(f"Out[{each}]" for each in list(known)[-5:]) or "no outputs"
            raise CannotFreeError(f"There is no Out[{number}] any more: there are {there}.")
        return forget.Outputs(f"Out[{number}]", (number,), shell)
    return _variable(word, shell)


def _variable(name: str, shell: Any) -> Target:
    known = forget.variables(shell)
    if name in known and not forget.is_the_shell_s_own(name):
        return forget.Variable(name, shell)
    whole = re.match(r"[^\W\d]\w*", name)
    if whole is not None and whole[0] != name and whole[0] in known:
        raise CannotFreeError(f"{name!r} is a part of {whole[0]!r}, and only whole variables are freed here: `del` it.")
    if name in known:
        raise CannotFreeError(f"{name!r} belongs to the shell itself, which cannot do without it.")
    raise CannotFreeError(f"There is no variable {name!r}. What can be freed: {', '.join(WORDS)}, Out[n], a variable.")


# ---- before ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """What each target is expected to give, the ones before it gone."""

    bytes: dict[Target, int]
    remarks: dict[Target, tuple[str, ...]]

    @classmethod
    def made(cls, session: Session, targets: Sequence[Target], shell: Any) -> _Plan:
        if all(isinstance(target, forget.Caches) for target in targets):
            return cls({}, {})
        so_far = [functools.partial(_any_keeps, targets[: place + 1]) for place in range(len(targets))]
        found = session.holders(shell, named=_NAMED, names_each=_NAMES, freed_if=so_far)
        _refuse_to_lose(targets, found)
        sizes: dict[Target, int] = {}
        remarks: dict[Target, tuple[str, ...]] = {}
        before, lost = 0, 0
        for target, freed in zip(targets, found.freed, strict=True):
            sizes[target] = freed.bytes - before
            remarks[target] = (*_others(target, targets, found), *_lost(freed.lost_bytes - lost))
            before, lost = freed.bytes, freed.lost_bytes
        garbage = (each.bytes for each in found.holders if each.held_by is HeldBy.GARBAGE and each.frameworks)
        cycles = sum(garbage)
        sizes |= {target: cycles for target in targets if isinstance(target, forget.Cycles)}
        return cls(sizes, remarks)

    def predicted(self, target: Target, session: Session) -> Released:
        if isinstance(target, forget.Caches):
            return Released(target=target.name, predicted_bytes=session.ledger().returnable_bytes, is_cache=True)
        return Released(
            target=target.name,
            predicted_bytes=self.bytes[target],
            remarks=self.remarks[target],
        )


def _any_keeps(targets: Sequence[Target], label: str, held_by: HeldBy) -> bool:
    return any(target.keeps(label, held_by) for target in targets)


def _lost(size: int) -> list[str]:
    if not size:
        return []
    return [f"{format_size(size)} that were allocated by hand lose their last address: nobody can free them then."]


def _refuse_to_lose(targets: Sequence[Target], found: Holders) -> None:
    """A raw address frees nothing when it goes: without it the memory could never be freed."""
    before = 0
    for target, freed in zip(targets, found.freed, strict=True):
        if freed.lost_bytes > before and isinstance(target, forget.Variable | forget.Outputs):
            size = format_size(freed.lost_bytes - before)
            raise CannotFreeError(
                f"{target.name} has the only address of {size} that were allocated by hand: without it nobody could "
                "free them. Free them as they were allocated, with cuMemFree or its like, and then it."
            )
        before = freed.lost_bytes


def _others(target: Target, targets: Sequence[Target], found: Holders) -> list[str]:
    """What keeps memory that this target leads to, and stays."""
    held, names = 0, dict[str, None]()
    for holder in found.holders:
        if not any(target.keeps(name.name, name.held_by) for name in holder.names):
            continue
        rest = _left(holder, targets)
        held += holder.bytes if rest else 0
        names.update(dict.fromkeys(name.path for name in rest))
    if not held:
        return []
    shown = ", ".join(list(names)[:_MOST_OTHERS])
    more = f" and {len(names) - _MOST_OTHERS} more" if len(names) > _MOST_OTHERS else ""
    return [f"{format_size(held)} stay, because {shown}{more} keep{'s' * (len(names) == 1)} them."]


def _left(holder: Holder, targets: Sequence[Target]) -> list[Name]:
    return [name for name in holder.names if not _any_keeps(targets, name.name, name.held_by)]


# ---- doing it -------------------------------------------------------------------------------------------------------


def _released(session: Session, target: Target, plan: _Plan) -> Released:
    before = session.ledger()
    if isinstance(target, forget.Caches):
        remarks = target.let_go()
        after = session.ledger()
        given = max(before.held_bytes - after.held_bytes, 0)
        return Released(
            target=target.name,
            predicted_bytes=before.returnable_bytes,
            freed_bytes=0,
            returned_bytes=given,
            is_cache=True,
            remarks=tuple(remarks),
        )
    remarks = [*plan.remarks[target], *target.let_go()]
    after = session.ledger()
    predicted = plan.bytes[target]
    if _freed(before, after) < predicted and not isinstance(target, forget.Cycles):
        gc.collect()  # what was let go of refers to itself, as the frames of a traceback do to their exception
        after = session.ledger()
    freed = _freed(before, after)
    return Released(
        target=target.name,
        predicted_bytes=predicted,
        freed_bytes=freed,
        returned_bytes=max(before.held_bytes - after.held_bytes, 0),
        remarks=(*remarks, *_surprise(predicted, freed)),
    )


def _freed(before: ByteLedger, after: ByteLedger) -> int:
    return max(before.live_bytes - after.live_bytes, 0)


def _surprise(predicted: int, freed: int) -> list[str]:
    if freed < predicted:
        return [f"{format_size(predicted - freed)} are still in use: native code, or a running thread, refers to them."]
    if freed > predicted:
        return [f"{format_size(freed - predicted)} more than predicted: the collector freed other cycles as well."]
    return []
