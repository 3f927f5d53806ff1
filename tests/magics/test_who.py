"""``%gpumem who``: in a real shell, on raw pointers, which need no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpumem_magic import _core
from gpumem_magic.verbs.names import NameNotFoundError, look_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.magics.conftest import Notebook

MIB = 1 << 20
SETUP = f"""
class Model:
    pass

model = Model()
model.layers = [alloc({30 * MIB}) for _ in range(2)]
cache = {{"first": model.layers[0]}}
lost = int(alloc({7 * MIB}))
where = hex(lost)
del lost
"""
FREE_ALL = """
free(*model.layers, int(where, 16))
"""


@pytest.fixture
def held(notebook: Notebook) -> Iterator[Notebook]:
    notebook.run(SETUP)
    yield notebook
    notebook.run(FREE_ALL)


def test_the_largest_pieces_and_the_ways_to_them(held: Notebook) -> None:
    text = held.run("%gpumem who")
    for way in ("cache['first']", "model.layers[0]", "model.layers[1]"):
        assert way in text
    assert "67.0 MiB in 3 pieces: 60.0 MiB held by notebook, 7.00 MiB lost" in text
    assert "Deleting this alone" not in text, "a raw address frees nothing when it goes"
    assert "cache['first']" in held.html.replace("&#x27;", "'")
    assert held.run("%gpumem who --top 1").count("MiB") < text.count("MiB")


def test_one_piece_by_its_name_and_by_its_address(held: Notebook) -> None:
    text = held.run("%gpumem who model.layers[0]")
    assert "30.0 MiB in 1 piece: 30.0 MiB held by notebook" in text
    assert "model.layers[1]" not in text
    assert "lost" in held.run("%gpumem who {where}")


def test_what_a_name_holds(held: Notebook) -> None:
    text = held.run("%gpumem who model")
    assert "60.0 MiB in 2 pieces" in text
    assert "lost" not in text


def test_an_exception_holds_the_locals_of_its_frames(notebook: Notebook) -> None:
    notebook.run(f"made = []\ndef train():\n    logits = alloc({50 * MIB})\n    made.append(int(logits))\n    1 / 0")
    cell = notebook.result.execution_count
    notebook.run("train()", fails=True)
    text = notebook.run("made = [hex(each) for each in made]\n%gpumem who")
    assert "50.0 MiB in 1 piece: 50.0 MiB held by exception" in text
    assert f"train() in In [{cell}]:3, local logits" in text.replace("\n", "") or "local logits" in text
    notebook.run("free(int(made[0], 16))")


def test_an_output_holds_its_value(notebook: Notebook) -> None:
    notebook.run(f"alloc({11 * MIB})")
    cell = notebook.result.execution_count
    text = notebook.run("%gpumem who")
    assert f"Out[{cell}]" in text
    assert f"_{cell}" in text
    assert "it stays until all are gone" in text
    notebook.run(f"free(Out[{cell}])")


def test_a_pointer_to_what_was_freed_is_no_memory(notebook: Notebook) -> None:
    notebook.run(f"kept = alloc({2 * MIB})\nstale = alloc({4 * MIB})\nfree(stale)")
    text = notebook.run("%gpumem who")
    assert "2.00 MiB in 1 piece" in text
    assert "stale" not in text
    notebook.run("free(kept)")


def test_searching_keeps_nothing(notebook: Notebook) -> None:
    notebook.run("import weakref\nclass Model: pass\nmodel = Model()\ngone = weakref.ref(model)")
    notebook.run(f"model.weight = alloc({MIB})\naddress = int(model.weight)")
    notebook.run("%gpumem who model")
    notebook.run("del model\nassert gone() is None\nfree(address)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "There is no variable 'nothing'"),
        ("model.absent", "was not found without running code"),
        ("model.layers[9]", "was not found without running code"),
        ("f()", "is no name"),
        ("1 +", "is no name"),
    ],
)
def test_what_is_not_there_is_a_sentence(held: Notebook, text: str, message: str) -> None:
    said = held.run(f"%gpumem who '{text}'", fails=True)
    assert "UsageError" in said
    assert message in said


def test_without_a_recording(notebook: Notebook) -> None:
    notebook.run("%gpumem off")
    assert "Nothing is being recorded" in notebook.run("%gpumem who", fails=True)


class Hostile:
    """Runs code whenever it is looked at as Python looks."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked for")

    @property
    def value(self) -> object:
        raise AssertionError("a property ran")

    def __getitem__(self, key: object) -> object:
        raise AssertionError("__getitem__ ran")


def test_looking_up_runs_no_code() -> None:
    hostile = Hostile()
    hostile.__dict__["plain"] = [1, {"a": (2, 3)}]
    names = {"x": hostile}
    assert look_up("x", names) is hostile
    assert look_up("x.plain[1]['a'][-1]", names) == 3
    for text in ("x.value", "x.other", "x[0]", "x.plain['a']", "x.plain[7]"):
        with pytest.raises(NameNotFoundError):
            look_up(text, names)
    assert _core.instance_dict(hostile)["plain"][0] == 1


def test_a_mistake_keeps_nothing(notebook: Notebook) -> None:
    notebook.run("import weakref\nclass Box: pass\nbox = Box()\ngone = weakref.ref(box)")
    assert "was not found" in notebook.run("%gpumem who box.missing", fails=True)
    notebook.run("del box\nassert gone() is None")


def test_a_long_search_shows_how_far_it_is(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumem_magic.magics.show._SILENT_S", 0.0)
    monkeypatch.setattr("gpumem_magic.magics.show._PAUSE_S", 0.0)
    text = notebook.run("%gpumem who")
    shown = [output for output in notebook.output.outputs if "Looking for who" in str(output.data)]
    assert shown, text
    assert shown[0].update is False
    assert all(output.update for output in shown[1:])
    shares = [int(str(output.data["text/plain"]).partition("%")[0].split()[-1]) for output in shown]
    assert shares == sorted(shares)
    last = [output for output in notebook.output.outputs if output.data.get("text/plain") == ""]
    assert last, "it was not taken away"


def test_a_quick_search_shows_nothing(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumem_magic.magics.show._SILENT_S", 1000.0)
    assert "Looking for who" not in notebook.run("%gpumem who")


def test_a_search_can_be_interrupted(notebook: Notebook) -> None:
    def interrupt(_progress: object) -> None:
        raise KeyboardInterrupt

    notebook.shell.magics_manager.registry["GpuMemoryMagics"].session.progress = interrupt
    notebook.run("%gpumem who", fails=True)
    assert isinstance(notebook.result.error_in_exec, KeyboardInterrupt)
    notebook.shell.magics_manager.registry["GpuMemoryMagics"].session.progress = None
    assert "No device memory" in notebook.run("%gpumem who")
