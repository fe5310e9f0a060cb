"""Methods, one published method a file. Importing this folder imports none of them; the loop knows only their contract.

A method of somebody else needs no line here: name it as `module:Class` (docs/extending.md).
"""

from csvi.catalogue import METHODS
from csvi.config import Config
from csvi.methods.contract import check_method, check_net
from csvi.methods.method import Method, Published
from csvi.plugins import digest_of_code, find


def find_method(name: str) -> type[Method]:
    """Import the class of a method, one of `METHODS` or `module:Class`.

    Raises:
        CsviError: there is none, or it does not say what `Method` asks of it.
    """
    kind = find(name, METHODS, Method, "method")
    check_method(kind)
    return kind


def code_of(name: str) -> str:
    """Digest the file of a method of somebody else; empty for one of `METHODS`, whose code is that of this csvi."""
    return digest_of_code(name, METHODS)


def build_method(config: Config, identities: int) -> Method:
    """Build the method of a run with random weights, for so many classes.

    Raises:
        CsviError: there is no such method or backbone, images of this size are too small for it, or its network is not
            the one that it says, or disagrees with it on whether masks are needed at test.
    """
    kind = find_method(config.method.name)
    method = kind(config.method, identities, config.data.height, config.data.width)
    check_net(method, config)
    return method


__all__ = ["METHODS", "Method", "Published", "build_method", "code_of", "find_method"]
