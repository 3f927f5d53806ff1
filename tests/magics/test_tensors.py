"""``--tensors`` in a real shell, on a PyTorch of our own: the real one needs a GPU for this (tests/gpu)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests import fake_torch

if TYPE_CHECKING:
    from tests.magics.conftest import Notebook

MIB = 1 << 20


@pytest.fixture
def torch(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = fake_torch.make()
    monkeypatch.setitem(sys.modules, "torch", made)
    notebook.shell.user_ns["torch"] = made
    return made


def rows(notebook: Notebook, name: str = "report") -> dict[str, tuple[int, int, int]]:
    """Per line of the saved report: count, made and live bytes."""
    tensors: Any = notebook[name].tensors  # type: ignore[attr-defined]
    tensors.self_check()
    return {row.where: (row.count, row.made_bytes, row.live_bytes) for row in tensors.rows}


def test_lines_of_a_cell(notebook: Notebook, torch: Any) -> None:
    text = notebook.run(f"""%%gpumem --tensors --save report
def make():
    return torch.empty({MIB})
kept = []
for _ in range(3):
    kept.append(make())
for _ in range(5):
    make()
weights = torch.empty({8 * MIB})
""")
    cell = f"In [{notebook.result.execution_count}]"
    assert rows(notebook) == {
        f"{cell}:9": (1, 8 * MIB, 8 * MIB),
        f"{cell}:3 make ← {cell}:6": (3, 3 * MIB, 3 * MIB),
        f"{cell}:3 make ← {cell}:8": (5, 5 * MIB, 0),
    }
    assert f"{cell}:9" in text
    assert "part of driver memory" in text
    assert "Tensors" in notebook.html
    assert torch.cache.enabled is None


def test_only_cells_that_ask_are_recorded(notebook: Notebook, torch: Any) -> None:
    notebook.run(f"kept = torch.empty({MIB})")
    text = notebook.run("%%gpumem --save report\npassing = torch.empty(512)")
    assert "Tensors" not in text
    assert notebook["report"].tensors is None  # type: ignore[attr-defined]
    assert torch.cache.switched == []
    assert "UsageError" in notebook.run("%gpumem tensors", fails=True)


def test_every_cell_until_it_is_off(notebook: Notebook, torch: Any) -> None:
    notebook.run("%gpumem on --tensors")
    notebook.run(f"kept = torch.empty({3 * MIB})")
    cell = f"In [{notebook.result.execution_count}]"
    assert len(torch.cache.switched) == 2, "switched on and off around the cell"
    text = notebook.run("%gpumem tensors")
    assert f"{cell}:1 " in text
    assert "3.00 MiB" in text
    assert f"{cell}:1 " in notebook.run("%gpumem tensors"), "a cell that makes none does not take its place"
    assert "Tensors" in notebook.run("%%gpumem\nother = torch.empty(512)")
    notebook.run("%gpumem on --no-tensors")
    switched = len(torch.cache.switched)
    notebook.run("more = torch.empty(512)")
    assert len(torch.cache.switched) == switched
    notebook.run("%gpumem on --tensors")
    notebook.run("%gpumem off")
    notebook.run("%gpumem on")
    switched = len(torch.cache.switched)
    notebook.run("even_more = torch.empty(512)")
    assert len(torch.cache.switched) == switched


def test_a_cell_that_fails_is_read_and_switched_off(notebook: Notebook, torch: Any) -> None:
    text = notebook.run(f"%%gpumem --tensors\nx = torch.empty({MIB})\n1 / 0", fails=True)
    assert f"In [{notebook.result.execution_count}]:2" in text
    assert torch.cache.enabled is None
    notebook.run("%%gpumem --tensors\nx = (", fails=True)
    assert torch.cache.enabled is None


def test_a_cell_inside_another_says_who_records(notebook: Notebook, torch: Any) -> None:
    text = notebook.run(f"""%%gpumem --tensors --save outer
get_ipython().run_cell("%%gpumem --tensors --save inner\\nkept = torch.empty({MIB})")
""")
    assert "recorded for the cell around this one" in text
    assert sum(live for _, _, live in rows(notebook, "outer").values()) == MIB
    assert torch.cache.enabled is None
    assert len(torch.cache.switched) == 2


def test_unloading_inside_a_cell_switches_off(notebook: Notebook, torch: Any) -> None:
    notebook.run("%gpumem on --tensors")
    notebook.run(f"x = torch.empty({MIB})\n%unload_ext gpumem_magic")
    assert torch.cache.enabled is None
    assert len(torch.cache.switched) % 2 == 0


def test_the_users_own_history_is_told_and_left(notebook: Notebook, torch: Any) -> None:
    notebook.run("torch.cuda.memory._record_memory_history(max_entries=100)")
    text = notebook.run(f"%%gpumem --tensors --save report\nkept = torch.empty({MIB})")
    assert "is left on" in text
    assert list(rows(notebook).values()) == [(1, MIB, MIB)]
    assert torch.cache.enabled == "all"
    assert len(torch.cache.traces[0]) == 1


def test_without_pytorch_there_is_a_sentence(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "PyTorch was not imported when this cell began" in notebook.run("%%gpumem --tensors\npass")


def test_a_tensor_is_not_kept_by_its_report(notebook: Notebook, torch: Any) -> None:
    notebook.run("%%gpumem --tensors --save report\nkept = torch.empty(512)")
    notebook.run("del kept")
    assert torch.cache.blocks == [[]]


def test_a_failed_assertion_shows_the_section_too(notebook: Notebook, torch: Any) -> None:
    text = notebook.run("%%gpumem --tensors --quiet --assert-no-leak\nx = alloc(512)\ny = torch.empty(512)", fails=True)
    assert "Tensors" in text
    notebook.run("free(x)")


def test_a_recording_that_ends_inside_the_cell(notebook: Notebook, torch: Any) -> None:
    text = notebook.run(f"%%gpumem --tensors\nkept = torch.empty({MIB})\n%gpumem off")
    assert "The recording ended inside this cell" in text
    assert torch.cache.enabled is None
    notebook.run("%gpumem on")
    assert "1.00 MiB" in notebook.run("%gpumem tensors")


def test_an_interrupt_while_it_is_switched_on(notebook: Notebook, torch: Any) -> None:
    original = torch.cuda.memory._record_memory_history

    def interrupted(*arguments: Any, **options: Any) -> None:
        original(*arguments, **options)
        if arguments[0] is not None:
            raise KeyboardInterrupt

    torch.cuda.memory._record_memory_history = interrupted
    notebook.run("%%gpumem --tensors\npass")
    assert torch.cache.enabled is None
    torch.cuda.memory._record_memory_history = original
    notebook.run(f"%%gpumem --tensors --save report\nkept = torch.empty({MIB})")
    assert list(rows(notebook).values()) == [(1, MIB, MIB)]
