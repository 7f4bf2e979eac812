"""libvirt's own sentences for values it does not take, where they differ from the XML engine's usual ones.

Each gives a function from the refused word to the error, for `bad=`; "{}" stands for the word.
"""

from collections.abc import Callable

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, InternalError, InvalidArg, VirtError, XmlDetail, XmlError

Refusal = Callable[[str], VirtError]


def wrong(text: str, domain: ErrorDomain = ErrorDomain.DOMAIN) -> Refusal:
    """An XML error."""
    return lambda word: XmlError(text.format(word), domain=domain)


def unsupported(text: str, domain: ErrorDomain = ErrorDomain.DOMAIN) -> Refusal:
    """An unsupported configuration."""
    return lambda word: ConfigUnsupported(text.format(word), domain=domain)


def internal(text: str, domain: ErrorDomain = ErrorDomain.DOMAIN) -> Refusal:
    """What libvirt calls an internal error although the document is to blame."""
    return lambda word: InternalError(text.format(word), domain=domain)


def detail(text: str, domain: ErrorDomain = ErrorDomain.DOMAIN) -> Refusal:
    """A badly formed description."""
    return lambda word: XmlDetail(text.format(word), domain=domain)


def argument(text: str, domain: ErrorDomain = ErrorDomain.NONE) -> Refusal:
    """An invalid argument."""
    return lambda word: InvalidArg(text.format(word), domain=domain)
