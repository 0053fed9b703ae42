"""What a network wants to see of an image."""

from __future__ import annotations

from typing import Final, Protocol

# ITU-R BT.601 as torchvision rounds it.
GREY: Final = (0.2989, 0.587, 0.114)


class Geometry(Protocol):
    """Channels, sides and values of what a network wants to see: `InputSpec` is one."""

    @property
    def channels(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def interpolation(self) -> str: ...
