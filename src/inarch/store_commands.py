"""The commands of `inarch store`."""

from __future__ import annotations

import typer

from inarch import arguments as ask
from inarch.consoles import console
from inarch.errors import InarchError
from inarch.plural import counted

store_app = typer.Typer(
    name="store", help="Look at stored activations, or remove them; a study makes again what it needs.",
    no_args_is_help=True,
)  # fmt: skip


@store_app.command("list")
def store_list(store: ask.StoreFolder = None) -> None:
    """List what is stored for each source, cut and split: size, images, number of views, when it was last used."""
    from inarch.features.place import readable, store_folder
    from inarch.features.shelf import Shelf
    from inarch.terminal import store_table

    folder = store_folder(store)
    entries = Shelf(folder).entries()
    if entries:
        console.print(store_table(entries))
    total = readable(sum(entry.size for entry in entries))
    console.print(f"{counted(len(entries), 'segment')}, {total}, in {folder}", soft_wrap=True)


@store_app.command("clear")
def store_clear(store: ask.StoreFolder = None) -> None:
    """Remove everything that is stored."""
    from inarch.features.place import readable, store_folder
    from inarch.features.shelf import Shelf

    folder = store_folder(store)
    try:
        removed, size = Shelf(folder).clear()
    except OSError as error:
        raise InarchError(
            f"{folder} cannot be cleared: {error.strerror or error}.", "Make it writable, or remove it by hand."
        ) from error
    console.print(f"{counted(removed, 'segment')} removed, {readable(size)}, from {folder}", soft_wrap=True)
