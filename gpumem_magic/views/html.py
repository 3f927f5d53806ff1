"""Building blocks of HTML. Escaping is structural: a plain ``str`` is text, only ``Html`` is markup."""

from __future__ import annotations

import html
import itertools
from typing import TYPE_CHECKING

from gpumem_magic.views.theme import style

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_VOID = frozenset({"br", "hr", "wbr", "meta", "line", "circle", "rect", "path"})


class Html(str):
    """Markup that is ready. Everything else is escaped on its way in."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: object) -> Html:
    """An element. Children that are not ``Html`` are escaped, ``None`` is left out.

    Attributes: ``class_`` and ``for_`` lose their underscore, others become hyphens (``stroke_width``,
    ``aria_label``); ``None`` and ``False`` are left out, ``True`` stands alone.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID and not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[str | None]) -> Html:
    """Children one after the other, escaped unless they are ``Html``."""
    return Html("".join(escaped(child) for child in children if child is not None))


def spaced(*children: str | None) -> Html:
    """Children with a space between them, which also reads well where there is no style sheet."""
    return joined(_between([child for child in children if child], " "))


def escaped(text: str) -> Html:
    """``text`` as markup that shows it; ``Html`` unchanged. Control characters are shown, not sent."""
    if isinstance(text, Html):
        return text
    visible = "".join(char if char.isprintable() or char in "\n\t " else "�" for char in text)
    return Html(html.escape(visible, quote=True))


def breakable(text: str) -> Html:
    """``text`` that may break its line after a dot, as dotted names must in a narrow table."""
    first, *rest = text.split(".")
    return joined([first, *(part for name in rest for part in (".", tag("wbr"), name))])


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_") if key.endswith("_") else _SVG_NAMES.get(key, key.replace("_", "-"))
    return f" {name}" if value is True else f' {name}="{escaped(str(value))}"'


_SVG_NAMES = {"viewBox": "viewBox", "preserveAspectRatio": "preserveAspectRatio"}


def answer(*children: str | None, label: str) -> Html:
    """A complete answer: its style and its content, ready for a notebook's output."""
    content = [child for child in children if child]
    return tag("section", tag("style", Html(style())), *content, class_="gpumem", aria_label=label)


def document(content: Html, title: str) -> str:
    """A page of its own around an answer, for a file that a browser opens."""
    head = joined(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("style", Html(_PAGE_STYLE)),
        ],
    )
    return f'<!DOCTYPE html>\n<html lang="en">{tag("head", head)}{tag("body", content)}</html>\n'


_PAGE_STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0 auto;max-width:1100px;padding:24px;"
    "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;background:#fff}"
    "@media(prefers-color-scheme:dark){body{background:#111418}}"
)


def data_table(
    titles: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    row_classes: Sequence[str] = (),
) -> Html:
    """A table that scrolls in itself when it is too wide. The first cell of a row names the row.

    Args:
        titles: per column its title and its classes: "num" for numbers, "bars" when a bar follows them, "wide" for
            the one that takes what room there is, "wrap" for one that may break its lines.
        rows: cells, text or ``Html``.
        caption: what the table is, for screen readers.
        row_classes: a class per row, "" for none; none at all when empty.
    """
    head = tag("tr", *(tag("th", title, scope="col", class_=kind or None) for title, kind in titles))
    kinds = [kind or None for _, kind in titles]
    classes = row_classes or itertools.repeat("")
    body = [_row(row, kinds, class_) for row, class_ in zip(rows, classes, strict=False)]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_="gm-table")
    return tag("div", inner, class_="gm-scroll", tabindex="0", role="group", aria_label=caption)


def _row(cells: Sequence[str], kinds: Sequence[str | None], class_: str) -> Html:
    made = [tag("td", cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True)]
    made[0] = tag("th", cells[0], scope="row", class_=kinds[0])
    return tag("tr", *made, class_=class_ or None)


def measure(text: str, part: float, whole: float, kind: str = "live") -> Html:
    """A number with a small bar beside it that shows its share of ``whole``."""
    share = 0.0 if whole <= 0 else min(max(part / whole, 0.0), 1.0)
    fill = tag("span", class_=f"gm-fill gm-{kind}", style=f"width:{100 * share:.1f}%") if share else None
    return joined([tag("span", text), tag("span", fill or "", class_="gm-bar", aria_hidden="true")])


def note(text: str | Html, severity: str = "info") -> Html:
    """A sentence that a reader must not miss. ``severity``: info, warning or error."""
    mark = {"info": "i", "warning": "!", "error": "×"}[severity]  # noqa: RUF001  (the sign that is meant)
    sign = tag("span", mark, class_="gm-mark", aria_hidden="true")
    return tag("p", spaced(sign, tag("span", text)), class_=f"gm-note gm-{severity}")


def badge(text: str, severity: str = "info", hint: str | None = None) -> Html:
    """A short word in a box."""
    return tag("span", text, class_=f"gm-badge gm-{severity}", title=hint)


def next_steps(steps: Sequence[tuple[str, str]]) -> Html:
    """The commands that go on from here: (command, what it shows)."""
    items = [joined([tag("code", command), f" {purpose}"]) for command, purpose in steps]
    return tag("p", "Next: ", joined(_between(items, " · ")), class_="gm-next")


def _between(items: Sequence[str], separator: str) -> list[str]:
    return [part for item in items for part in (separator, item)][1:]
