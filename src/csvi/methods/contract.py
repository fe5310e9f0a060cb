"""What csvi asks of a method, so that one of somebody else that does not keep to it is told so in one sentence."""

import inspect
from typing import Any

from torch import Tensor

from csvi.config import Config, MethodSettings
from csvi.errors import CsviError
from csvi.methods.method import Method
from csvi.model.net import EmbeddingNet


def check_method(kind: type[Method]) -> None:
    """Raises `CsviError` if the `Settings`, the `Net` or the `forward` that a class must name is not as in `Method`."""
    name, settings, net = _name(kind), kind.Settings, kind.Net
    if not _derives(settings, MethodSettings):
        raise CsviError(f"{name}.Settings must be a dataclass that derives from csvi.config.MethodSettings")
    for base in settings.__mro__:
        own = list(inspect.get_annotations(base))
        if own and "__dataclass_fields__" not in vars(base):
            raise CsviError(f"{name}.Settings: write @dataclass above {base.__name__}, or {own[0]} is no setting")
    if not _derives(net, EmbeddingNet) or net is EmbeddingNet:
        raise CsviError(f"{name}.Net must be the class of its network, derived from csvi.model.net.EmbeddingNet")
    if kind.forward is Method.forward:
        raise CsviError(f"{name} must have a method forward(self, batch, step), which computes its losses")


def check_net(method: Method, config: Config) -> None:
    """Raises `CsviError` if the network of a method is not what is saved for testing and built again from there."""
    kind, net = type(method), getattr(method, "net", None)
    if type(net) is not kind.Net:
        found = f"is {_what(net)}" if hasattr(method, "net") else "is not there"
        raise CsviError(f"{_name(kind)}.net must be of its class Net, {kind.Net.__name__}, and {found}")
    given = config.method.name, config.data.height, config.data.width
    built = net.method, net.height, net.width
    if built != given:
        raise CsviError(f"{_name(kind)} must give its network settings.name, height and width: {given}, not {built}")
    if net.takes_masks != kind.tests_with_masks(config.method):
        raise CsviError(
            f"the method {config.method.name} and its network disagree on masks at test: tests_with_masks of the one "
            "must be takes_masks of the other"
        )


def checked_terms(terms: Any, method: Method) -> dict[str, Tensor]:
    """Return the loss terms of a step as they are, if they are terms; asks for no value, and so waits for no device.

    Raises:
        CsviError: they are no dict of tensors of shape (), or nothing can be learnt from them.
    """
    must = f"{_name(type(method))}.forward must return a dict of scalar tensors"
    if not isinstance(terms, dict):
        raise CsviError(f"{must}: it returned {_what(terms)}")
    if not terms:
        raise CsviError(f"{must}: it returned an empty one")
    for name, term in terms.items():
        if not isinstance(term, Tensor):
            raise CsviError(f"{must}: {name!r} is {_what(term)}")
        if term.ndim:
            raise CsviError(f"{must}: {name!r} is of shape {tuple(term.shape)}")
    if not any(term.requires_grad for term in terms.values()):
        raise CsviError(f"{must} that depend on its parameters: none of {', '.join(map(str, terms))} has a gradient")
    return terms


def _name(kind: type[Method]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _what(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _derives(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)
